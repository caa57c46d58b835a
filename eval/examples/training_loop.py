"""A training loop of one's own: H2 at R = 1.4 bohr in a cube of 8 bohr, from scratch, one step after another.

python eval/examples/training_loop.py [steps]
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnqs
from fnqs.hamiltonian import local_energies
from fnqs.optimisation.log_derivatives import log_derivatives
from fnqs.optimisation.natural_gradient import centre_per_configuration, clip_local_energies, spring
from fnqs.sampling.metropolis import adapt_widths, initial_walkers, metropolis
from fnqs.system import stack_systems

fnqs.configure()
molecule = fnqs.make_configuration(8.0 * np.eye(3), [[0.0, 0.0, 0.0], [0.0, 0.0, 1.4]])
model = fnqs.ModelConfig(features=16, vectors=4, amplitudes=4)
wavefunction, optimizer = fnqs.WaveFunction(model), spring(0.05, damping=1e-3, momentum=0.9, max_norm=2.0)
systems = jax.device_put(stack_systems([fnqs.make_system(molecule, model)]))  # several of one N may meet in a step
params = wavefunction.init(jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], systems))
walkers = initial_walkers(jnp.asarray(molecule.protons, jnp.float32), jax.random.key(1), 128)[None]
state, widths = optimizer.init(params), np.array([0.5])


@jax.jit
def step(params, state, walkers, widths, key):
    """Sample, evaluate, differentiate, solve."""
    contexts = jax.vmap(partial(wavefunction.encode, params))(systems)
    walkers, acceptance = metropolis(wavefunction, params, contexts, walkers, widths, key, 20)
    energies = local_energies(wavefunction, params, contexts, systems, walkers, 32)
    rows = centre_per_configuration(log_derivatives(wavefunction, params, systems, walkers, 32))
    residual = centre_per_configuration(clip_local_energies(energies))
    updates, state = optimizer.update(params, state, params, jacobian=rows, residual=residual)
    return optax.apply_updates(params, updates), state, walkers, adapt_widths(widths, acceptance, 0.5), energies


for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 60):
    params, state, walkers, widths, energies = step(params, state, walkers, widths, jax.random.key(100 + number))
    error = np.std(energies) / np.sqrt(energies.size)
    print(f"step {number + 1}: E = {np.mean(energies):.4f} ± {error:.4f} Ha, variance {np.var(energies):.4f} Ha²")
