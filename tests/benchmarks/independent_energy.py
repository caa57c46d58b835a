"""Check an energy below published ones by another way to the same number.

    python tests/benchmarks/independent_energy.py runs/bcc_n16 [measurements=400]

Over |psi|^2, and over no other density, <|grad log psi|^2>/2 equals the mean of -(laplacian psi)/2 psi: a wave function
with a jump or a kink, walkers that are not distributed as they should be, or a wrong Laplacian would tell the two
apart. The Coulomb energy is summed again with another splitting of the Ewald sums and tenfold accuracy. Prints
the mean local energy, the mean of the other form and their difference (Ha per atom), with reblocked errors.
"""

from __future__ import annotations

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.cli.notation import with_error
from fnqs.ewald import STANDARD_ACCURACY, ewald_energy, make_ewald
from fnqs.hamiltonian import local_energies
from fnqs.precision import configure
from fnqs.sampling.metropolis import metropolis
from fnqs.system import make_system, stack_systems
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.record import Record
from fnqs_eval.energies.statistics import reblocked_error
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint
from fnqs_train.config import SamplingConfig, load_config
from fnqs_train.equilibration import make_equilibration
from fnqs_train.loading import load_dataset, load_params

WALKERS, SWEEPS, SPLITTING_FACTOR = 256, 10, 1.3


def main(run: str, measurements: str = "400") -> None:
    """Measure every configuration of a run."""
    configure()
    checkpoint = resolve_checkpoint(run)
    config = load_config(checkpoint.run_folder)
    params = load_params(checkpoint, config)
    for record in load_dataset(config):
        measure(WaveFunction(config.model), params, record, int(measurements))


def measure(wavefunction: WaveFunction, params: dict, record: Record, measurements: int) -> None:
    """Sample one configuration and print its energy in both forms."""
    system = jax.tree.map(jnp.asarray, stack_systems([make_system(record.configuration, wavefunction.config)]))
    standard = make_ewald(record.configuration)
    other = make_ewald(
        record.configuration,
        accuracy=0.1 * STANDARD_ACCURACY,
        splitting=SPLITTING_FACTOR * float(standard.splitting),
    )
    equilibrate = make_equilibration(wavefunction, SamplingConfig(equilibration_sweeps=1000))
    walkers = jnp.zeros((1, WALKERS, record.n_atoms, 3), jnp.float32)
    walkers, widths, *_ = equilibrate(
        params,
        system,
        walkers,
        jnp.full((1,), 0.3, jnp.float32),
        np.ones(1, bool),
        np.zeros(1, bool),
        jax.random.key(1),
    )

    @jax.jit
    def sample(walkers, key):
        contexts = jax.vmap(partial(wavefunction.encode, params))(system)
        walkers, _ = metropolis(wavefunction, params, contexts, walkers, widths, key, SWEEPS)
        context = jax.tree.map(lambda leaf: leaf[0], contexts)

        def other_form(electrons):
            _, log = wavefunction.log_psi_jet(params, context, electrons)
            slope = 0.5 * jnp.sum(jnp.abs(log.jacobian.astype(jnp.complex128)) ** 2)
            return slope + ewald_energy(other, electrons.astype(jnp.float64))

        energies = local_energies(wavefunction, params, contexts, system, walkers, 64)[0]
        return walkers, jnp.real(energies), jax.lax.map(other_form, walkers[0], batch_size=64)

    forms: list[list[np.ndarray]] = [[], []]
    for step in range(measurements):
        walkers, *values = sample(walkers, jax.random.key(step + 2))
        for form, value in zip(forms, values, strict=True):
            form.append(np.asarray(value, np.float64) / record.n_atoms)
    by_laplacian, by_gradient = (np.array(form) for form in forms)
    print(f"{record.identifier}, {WALKERS} walkers, {measurements} measurements, Ha per atom")
    for name, values in (
        ("local energy", by_laplacian),
        ("|grad log psi|^2/2 and other Ewald", by_gradient),
        ("difference", by_gradient - by_laplacian),
    ):
        estimate = reblocked_error(values)
        print(f"  {name:36} {with_error(estimate.mean, estimate.error)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
