"""The command fnqs-evaluate: energies of a checkpoint, and how well it transfers."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fnqs.cli.command_line import CommandParser, nonnegative_int, positive_float, positive_int, run_command
from fnqs.cli.versions import add_version_option
from fnqs.errors import InputError
from fnqs.precision import configure
from fnqs.wavefunction import WaveFunction
from fnqs_eval.devices import use_every_core
from fnqs_eval.dmc.command import add_dmc
from fnqs_eval.energies.energy import EvaluationSettings
from fnqs_eval.energies.evaluate import (
    at_twists,
    averages,
    evaluate_with_journal,
    finish,
    known_dataset,
    settings_at_twists,
    with_averages,
)
from fnqs_eval.energies.journal import SUFFIX, Journal, fingerprint
from fnqs_eval.energies.outputs import write_csv, write_extxyz
from fnqs_eval.energies.reliability import training_distribution
from fnqs_eval.energies.symmetry import reduce_by_symmetry
from fnqs_eval.energies.table import EnergyResult, print_table, write_json
from fnqs_eval.energies.twists import parse_twists
from fnqs_eval.report.report import write_report
from fnqs_eval.transfer.protocol import describe_protocol
from fnqs_eval.transfer.protocol_command import run_protocol
from fnqs_train.checkpointing.checkpoint import CheckpointPath, resolve_checkpoint, restore_meta
from fnqs_train.checkpointing.publish import publish
from fnqs_train.commands import add_configuration_options
from fnqs_train.config import RunConfig, load_config
from fnqs_train.loading import load_params, read_selected
from fnqs_train.models.shipped import results_folder
from fnqs_train.run_folder import used_alone


def main(arguments: list[str] | None = None) -> int:
    """Entry point of fnqs-evaluate."""
    return run_command("fnqs-evaluate", lambda: _run(arguments))


def _run(arguments: list[str] | None) -> int:
    parser = CommandParser(
        prog="fnqs-evaluate",
        description="Energies of a trained wave function, with reblocked error bars.\n"
        "Energies are in Ha per atom, variances in Ha^2 per atom, lengths in bohr.",
    )
    add_version_option(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_energies(commands)
    add_dmc(commands)
    _add_transfer(commands)
    _add_report(commands)
    _add_publish(commands)
    options = parser.parse_args(arguments)
    configure()
    return options.run(options)


def _add_energies(commands) -> None:
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
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=Path,
        help="run folder, a step in it, or the name of a model that comes with fnqs: foundation",
    )
    add_configuration_options(parser)
    parser.add_argument("--walkers", type=positive_int, default=64, help="walkers of each configuration (default 64)")
    parser.add_argument(
        "--error",
        type=positive_float,
        default=1e-3,
        help="standard error of E/N, Ha per atom, at which sampling stops by itself (default 0.001); with --twists "
        "that of the average",
    )
    parser.add_argument(
        "--measurements",
        type=positive_int,
        default=1024,
        help="local energies of every walker after which it stops in any case (default 1024, in groups of 16)",
    )
    parser.add_argument(
        "--equilibration",
        metavar="SWEEPS",
        type=positive_int,
        default=0,
        help="moves before anything counts, at least (default: as many as the walkers need to forget where they "
        "started; what is not equilibrated within a limit that depends on N and density is flagged)",
    )
    parser.add_argument(
        "--between",
        type=positive_int,
        default=10,
        help="all-electron moves between two local energies of a walker (default 10)",
    )
    parser.add_argument(
        "--seed", type=nonnegative_int, default=0, help="of walkers, moves and random twists (default 0)"
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
        choices=("first", "lowest"),
        default="first",
        help="configuration from which energy differences are taken (default first)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="JSON with the same numbers (default <run folder>/energies-<name of the file>.json); a CSV and an extxyz "
        "file are written beside it",
    )
    parser.add_argument(
        "--restart", action="store_true", help="forget what an evaluation that was cut off left in its journal"
    )
    parser.set_defaults(run=_energies)


def _energies(options: argparse.Namespace) -> int:
    use_every_core()
    checkpoint = resolve_checkpoint(options.checkpoint)
    config = load_config(checkpoint.run_folder)
    twists = parse_twists(options.twists, options.seed) if options.twists is not None else None
    records = read_selected(options.configurations, options.frames)
    params = load_params(checkpoint, config)
    settings = EvaluationSettings(
        walkers=options.walkers,
        equilibration_sweeps=options.equilibration,
        sweeps_between=options.between,
        target_error=options.error,
        max_measurements=options.measurements,
        seed=options.seed,
    )
    provenance = _provenance(checkpoint, config, settings, str(options.configurations))
    sets = [] if twists is None else [reduce_by_symmetry(twists, record.configuration) for record in records]
    tasks = at_twists(records, sets) if sets else records
    each = settings_at_twists(settings, sets) if sets else settings
    output = options.output or results_folder(checkpoint.run_folder) / f"energies-{options.configurations.stem}.json"
    if output.suffix in (".csv", ".extxyz"):
        raise InputError(f"--output {output}: name the JSON file; the CSV and extxyz files are written beside it")
    journal_path = output.with_name(output.name + SUFFIX)
    if options.restart:
        journal_path.unlink(missing_ok=True)
    with Journal(journal_path, fingerprint(checkpoint, each, tasks, twists)) as journal:
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
    if result.variance_per_atom > 0.1:
        flags.append(
            f"variance/N {result.variance_per_atom:.2g} Ha² is large: the energy lies far above the ground state"
        )
    if result.label_energy_per_atom is not None and math.isfinite(result.energy_per_atom):
        excess = 1e3 * (result.energy_per_atom - result.label_energy_per_atom)
        flags.append(
            f"{excess:+.1f} ± {1e3 * result.error_per_atom:.1f} mHa per atom from its label ({result.label_convention})"
        )
    return flags


def _add_transfer(commands) -> None:
    parser = commands.add_parser(
        "transfer",
        help="what was held out: zero-shot, fine-tuned and from scratch, and what can be concluded",
        description="Evaluate a run on configurations it never saw, fine-tune on them, and train on them from\n"
        "scratch. Prints tables and what can be concluded from them: differences of three error bars or more.\n"
        "Written to RUN/transfer/: results.json, transfer.png, training.png, all trainings. What was killed goes on\n"
        "with the same command.\n\n"
        "  fnqs-evaluate transfer runs/quickstart\n"
        "  fnqs-evaluate transfer runs/quickstart --protocol configs/transfer/held_out.toml\n\n"
        "Without a protocol, configurations of the held-out densities and phases are evaluated before and after as\n"
        "many steps as [transfer] in the run's config says. With a protocol, its items are, on the way too: the steps\n"
        "and seconds that both trainings need to come near the limit, and what fine-tuning forgets, are written to\n"
        "RUN/transfer-<name of the protocol>/.",
        epilog=describe_protocol(),
    )
    parser.add_argument("checkpoint", metavar="RUN", type=Path, help="run folder, a step in it, or foundation")
    parser.add_argument(
        "--protocol", metavar="FILE", type=Path, help="TOML file of what is held out; its keys are below"
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        help="folder of the results (default RUN/transfer, or RUN/transfer-<name of the protocol>)",
    )
    parser.add_argument("--restart", action="store_true", help="forget what was done and start anew")
    parser.set_defaults(run=_transfer)


def _transfer(options: argparse.Namespace) -> int:
    checkpoint = resolve_checkpoint(options.checkpoint)
    name = "transfer" if options.protocol is None else f"transfer-{options.protocol.stem}"
    folder = options.output or results_folder(checkpoint.run_folder) / name
    with used_alone(folder, "fnqs-evaluate"):
        return run_protocol(checkpoint, options.protocol, folder, restart=options.restart)


def _add_report(commands) -> None:
    parser = commands.add_parser(
        "report",
        help="one HTML page about runs, its pictures as PNG, and a model card for each",
        description="Put together what the run folders hold: training curves, zero-shot energies, transfer, costs,\n"
        "failures, and the file that each number comes from. Nothing is computed anew; the page is one file\n"
        "that loads nothing. Writes FOLDER/report.html and *.png, and model-card.md into every run\n"
        "(into FOLDER where a run is read-only).\n\n"
        "  fnqs-evaluate report runs/quickstart",
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run folders")
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, help="folder of the report (default <first run folder>/report)"
    )
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    written = write_report(options.runs, options.output or options.runs[0] / "report")
    print("written: " + ", ".join(str(path) for path in written))
    return 0


def _add_publish(commands) -> None:
    parser = commands.add_parser(
        "publish",
        help="a copy of a run to give away: it evaluates and fine-tunes, without walkers and optimiser",
        description="Copy config, recipe, record, model card and one checkpoint of a run into a new folder, without\n"
        "optimiser and walkers: a few hundred kB that evaluate and fine-tune like the run.\n\n"
        "  fnqs-evaluate report runs/foundation                                  writes the model card\n"
        "  fnqs-evaluate publish runs/foundation --output foundation",
    )
    parser.add_argument("checkpoint", metavar="RUN", type=Path, help="run folder, or a step in it")
    parser.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="a new folder")
    parser.set_defaults(run=_publish)


def _publish(options: argparse.Namespace) -> int:
    checkpoint = resolve_checkpoint(options.checkpoint)
    folder = publish(checkpoint, options.output)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"written: {folder}, step {checkpoint.step}, {size / 1e3:.0f} kB")
    return 0


def _provenance(
    checkpoint: CheckpointPath, config: RunConfig, settings: EvaluationSettings, source: str
) -> dict[str, Any]:
    return {
        "run": config.name,
        "step": checkpoint.step,
        "checkpoint": restore_meta(checkpoint),
        "configurations": source,
        "settings": dataclasses.asdict(settings),
        "versions": {name: version(name) for name in ("fnqs", "jax", "numpy")},
        "spin": "unpolarised; the same twist for both spins",
    }
