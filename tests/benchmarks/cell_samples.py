"""Samples of |psi|^2 in one configuration, shared by the programs that measure something beside the local energy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.hamiltonian import local_energies
from fnqs.sampling.metropolis import metropolis
from fnqs.system import make_system, stack_systems
from fnqs.wavefunction import Context, WaveFunction
from fnqs_data.store.record import Record
from fnqs_train.config import SamplingConfig
from fnqs_train.equilibration import make_equilibration

SWEEPS, EQUILIBRATION_SWEEPS = 10, 1000
"""Moves of all electrons between two measurements, and before the first at least."""

FIRST_WIDTH = 0.3
"""Width of a move (bohr) that equilibration starts with."""

CHUNK = 64
"""Walkers whose energies are computed together."""


def energies_and(
    quantity: Callable[[Context, jax.Array], jax.Array],
    wavefunction: WaveFunction,
    params: dict,
    record: Record,
    *,
    walkers: int,
    measurements: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Local energies (Ha of the cell) and another quantity of the same walkers, both (measurements, walkers).

    Args:
        quantity: of one walker (N, 3) in the context of the configuration, a real number.
        wavefunction: the model.
        params: its parameters.
        record: the configuration.
        walkers: independent of each other.
        measurements: of every walker, SWEEPS apart.
    """
    system = jax.tree.map(jnp.asarray, stack_systems([make_system(record.configuration, wavefunction.config)]))
    equilibrate = make_equilibration(wavefunction, SamplingConfig(equilibration_sweeps=EQUILIBRATION_SWEEPS))
    electrons = jnp.zeros((1, walkers, record.n_atoms, 3), jnp.float32)
    width, fresh = jnp.full(1, FIRST_WIDTH, jnp.float32), np.ones(1, bool)
    electrons, width, *_ = equilibrate(params, system, electrons, width, fresh, ~fresh, jax.random.key(1))

    @jax.jit
    def sample(electrons, key):
        contexts = jax.vmap(partial(wavefunction.encode, params))(system)
        electrons, _ = metropolis(wavefunction, params, contexts, electrons, width, key, SWEEPS)
        context = jax.tree.map(lambda leaf: leaf[0], contexts)
        energies = local_energies(wavefunction, params, contexts, system, electrons, CHUNK)[0]
        others = jax.lax.map(partial(quantity, context), electrons[0], batch_size=CHUNK)
        return electrons, jnp.real(energies), others

    samples = []
    for step in range(measurements):
        electrons, *values = sample(electrons, jax.random.key(step + 2))
        samples.append([np.asarray(value, np.float64) for value in values])
    energies, others = (np.array(values) for values in zip(*samples, strict=True))
    return energies, others
