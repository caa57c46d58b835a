"""Check an energy below published ones by another way to the same number.

    python tests/benchmarks/independent_energy.py runs/bcc_n16 [measurements=400]

Over |psi|^2, and over no other density, <|grad log psi|^2>/2 equals the mean of -(laplacian psi)/2 psi: a wave function
with a jump or a kink, walkers that are not distributed as they should be, or a wrong Laplacian would tell the two
apart. The Coulomb energy is summed again with another splitting of the Ewald sums and tenfold accuracy. Prints
the mean local energy, the mean of the other form and their difference (Ha per atom), with reblocked errors.
"""

from __future__ import annotations

import sys

import jax.numpy as jnp
from cell_samples import energies_and

from fnqs.cli.notation import with_error
from fnqs.ewald import STANDARD_ACCURACY, ewald_energy, make_ewald
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.record import Record
from fnqs_eval import load_model
from fnqs_eval.energies.statistics import reblocked_error
from fnqs_train.loading import load_dataset

WALKERS, SPLITTING_FACTOR = 256, 1.3


def main(run: str, measurements: str = "400") -> None:
    """Measure every configuration of a run."""
    model = load_model(run)
    for record in load_dataset(model.config):
        measure(model.wavefunction, model.params, record, int(measurements))


def measure(wavefunction: WaveFunction, params: dict, record: Record, measurements: int) -> None:
    """Sample one configuration and print its energy in both forms."""
    standard = make_ewald(record.configuration)
    other = make_ewald(
        record.configuration,
        accuracy=0.1 * STANDARD_ACCURACY,
        splitting=SPLITTING_FACTOR * float(standard.splitting),
    )

    def other_form(context, electrons):
        _, log = wavefunction.log_psi_jet(params, context, electrons)
        slope = 0.5 * jnp.sum(jnp.abs(log.jacobian.astype(jnp.complex128)) ** 2)
        return slope + ewald_energy(other, electrons.astype(jnp.float64))

    by_laplacian, by_gradient = (
        values / record.n_atoms
        for values in energies_and(other_form, wavefunction, params, record, walkers=WALKERS, measurements=measurements)
    )
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
