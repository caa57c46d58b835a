"""Whether error bars are as long as they should be: many short evaluations of one configuration against each other.

    python tests/benchmarks/error_bars.py [RUN] [--cell sc-8-1.6] [--repetitions 64] [--walkers 32] [--error 2e-3]

RUN defaults to the shipped model. The configuration (PHASE-N-r_s) is evaluated so many times with walkers and moves of
its own each time. Printed are chi squared of the energies about their mean per degree of freedom, which is 1 within
sqrt(2 / (repetitions - 1)) if the errors are right, and the spread of the energies over the mean error bar.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np
from equilibration import cell

from fnqs.precision import configure
from fnqs_data.store.record import Record
from fnqs_eval import load_model
from fnqs_eval.energies.energy import EvaluationSettings, evaluate_records


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="foundation")
    parser.add_argument("--cell", default="sc-8-1.6", metavar="PHASE-N-r_s")
    parser.add_argument("--repetitions", type=int, default=64)
    parser.add_argument("--walkers", type=int, default=32)
    parser.add_argument("--error", type=float, default=2e-3, help="Ha per atom at which an evaluation stops")
    options = parser.parse_args()
    configure()
    model = load_model(options.run)
    record = Record(configuration=cell(options.cell), identifier="", phase=options.cell.split("-")[0], split="train")
    # The names are in the seeds.
    records = [dataclasses.replace(record, identifier=str(count)) for count in range(options.repetitions)]
    settings = EvaluationSettings(walkers=options.walkers, target_error=options.error)
    began = time.process_time()
    results = evaluate_records(model.wavefunction, model.params, records, settings)
    seconds = time.process_time() - began
    energies = np.array([result.energy_per_atom for result in results])
    errors = np.array([result.error_per_atom for result in results])
    chi = float(np.sum(((energies - np.average(energies, weights=errors**-2)) / errors) ** 2)) / (len(results) - 1)
    ratio = float(np.std(energies, ddof=1) / np.sqrt(np.mean(errors**2)))
    sweeps = np.array([result.equilibration_sweeps for result in results])
    flagged = sum(bool(result.flags) for result in results)
    print(
        f"{options.cell}, {len(results)} repetitions, {options.walkers} walkers: chi^2 {chi:.2f} "
        f"± {np.sqrt(2 / (len(results) - 1)):.2f}, spread over error {ratio:.2f}, mean error "
        f"{1e3 * np.mean(errors):.2f} mHa per atom, {sweeps.min()} to {sweeps.max()} sweeps of equilibration, "
        f"{flagged} flagged, {seconds:.0f} s of processor time"
    )


if __name__ == "__main__":
    main()
