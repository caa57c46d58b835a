"""The command fnqs-evaluate energies."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from typing import get_args

from fnqs.cli.command_line import positive_int
from fnqs.system import check_spin
from fnqs.wavefunction import WaveFunction
from fnqs_eval.devices import use_every_core
from fnqs_eval.energies.energy import EvaluationSettings
from fnqs_eval.energies.evaluate import (
    Reference,
    at_twists,
    averages,
    evaluate_with_journal,
    finish,
    known_dataset,
    settings_at_twists,
    with_averages,
)
from fnqs_eval.energies.outputs import write_csv, write_extxyz
from fnqs_eval.energies.reliability import POOR_VARIANCE, training_distribution
from fnqs_eval.energies.sampling_command import (
    add_sampling_options,
    open_journal,
    provenance_of,
    read_request,
)
from fnqs_eval.energies.symmetry import reduce_by_symmetry
from fnqs_eval.energies.table import EnergyResult, print_table, write_json
from fnqs_eval.energies.twists import parse_twists
from fnqs_train.config import RunConfig


def add_energies(commands) -> None:
    """Add the command to the sub-parsers of fnqs-evaluate."""
    parser = commands.add_parser(
        "energies",
        help="energies of the configurations in a file, without any training on them",
        description="Sample every configuration with the parameters as they are (zero-shot for one that was\n"
        "not trained on) and print configuration, N, r_s, phase, twist, E/N, error bar, variance/N,\n"
        "acceptance, the difference to the first configuration and how far the number can be trusted. Each is\n"
        "sampled until its error bar is as short as --error. A run that was killed goes on with the same command.\n"
        "All accelerators of the machine are used, or else all processor cores that the process may use.\n\n"
        "  fnqs-evaluate energies runs/quickstart --configurations my.extxyz --frames 0:5\n"
        "  fnqs-evaluate energies runs/quickstart --configurations my.extxyz --twists 2x2x2",
    )
    add_sampling_options(
        parser,
        prefix="energies",
        walkers=64,
        error=1e-3,
        stops="at which sampling stops by itself (default 0.001); with --twists that of the average",
        also="a CSV and an extxyz file",
    )
    parser.add_argument(
        "--measurements",
        type=positive_int,
        default=1024,
        help="local energies of every walker after which it stops in any case (default 1024, in groups of 16)",
    )
    parser.add_argument(
        "--between",
        type=positive_int,
        default=10,
        help="all-electron moves between two local energies of a walker (default 10)",
    )
    parser.add_argument(
        "--equilibration-limit",
        metavar="SWEEPS",
        type=positive_int,
        help="moves after which equilibration is given up and the result flagged (default: by N and density)",
    )
    parser.add_argument(
        "--twists",
        metavar="SET",
        help="evaluate every configuration at each of these and average, instead of the twist it comes with: "
        "4x4x4 (Monkhorst-Pack; of those that symmetry makes equal only one), random:32 (seeded), or fractions of the "
        "reciprocal lattice vectors such as '0,0,0;0.25,0,0'; both spins carry the same twist",
    )
    parser.add_argument(
        "--relative",
        choices=get_args(Reference),
        default="first",
        help="configuration from which energy differences are taken (default first)",
    )
    parser.set_defaults(run=run_energies)


def run_energies(options: argparse.Namespace) -> int:
    """Evaluate what is asked for, print the table and write the files."""
    use_every_core()
    twists = parse_twists(options.twists, options.seed) if options.twists is not None else None
    checkpoint, config, params, records, output = read_request(options, "energies", (".csv", ".extxyz"))
    settings = EvaluationSettings(
        walkers=options.walkers,
        equilibration_sweeps=options.equilibration,
        sweeps_between=options.between,
        target_error=options.error,
        max_measurements=options.measurements,
        seed=options.seed,
        equilibration_limit=options.equilibration_limit,
    )
    provenance = provenance_of(checkpoint, config, settings, options.configurations)
    sets = [] if twists is None else [reduce_by_symmetry(twists, record.configuration) for record in records]
    tasks = at_twists(records, sets) if sets else records
    each = settings_at_twists(settings, sets) if sets else settings
    for record in tasks:
        check_spin(record.configuration, config.model)
    with open_journal(options, output, checkpoint, each, tasks, twists) as journal:
        results = evaluate_with_journal(
            WaveFunction(config.model), params, tasks, each, journal, lambda text: print(text, file=sys.stderr)
        )
        rows = with_averages(results, sets) if sets else results
        dataset = known_dataset(config)
        distribution = None if dataset is None else training_distribution(dataset, config.data.split)
        rows = finish(rows, records, distribution, options.relative)
        rows = [dataclasses.replace(row, flags=row.flags + _worth(row, config)) for row in rows]
        if twists is not None:
            provenance["twists"] = "; ".join(dict.fromkeys(used.description for used in sets))
        if len(averages(rows)) > 1:
            provenance["relative_to"] = options.relative
        write_json(output, rows, provenance)
        write_csv(output.with_suffix(".csv"), rows)
        write_extxyz(output.with_suffix(".extxyz"), records, averages(rows))
        journal.remove()
    print_table(rows, title=f"{options.checkpoint}, step {checkpoint.step}: zero-shot energies")
    if twists is not None:
        print("both spins carry the same twist")
    if dataset is None:
        print("the training set is not on this machine, so no distance from it is given")
    print(f"written: {output}, .csv, .extxyz")
    return 0


def _worth(result: EnergyResult, config: RunConfig) -> list[str]:
    """Say what a zero-shot number is worth: how far the configuration lies from what was trained on."""
    flags = []
    if result.number > 2 * config.transfer.number:
        flags.append(
            f"N = {result.number} is far beyond the N <= {config.transfer.number} of the training: take E/N "
            f"as an upper bound without claim to accuracy"
        )
    if result.variance_per_atom > POOR_VARIANCE:
        flags.append(
            f"variance/N {result.variance_per_atom:.2g} Ha² is large: the energy lies far above the ground state"
        )
    if result.label_energy_per_atom is not None and math.isfinite(result.energy_per_atom):
        excess = 1e3 * (result.energy_per_atom - result.label_energy_per_atom)
        flags.append(
            f"{excess:+.1f} ± {1e3 * result.error_per_atom:.1f} mHa per atom from its label ({result.label_convention})"
        )
    return flags
