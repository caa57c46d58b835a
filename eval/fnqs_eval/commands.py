"""The command fnqs-evaluate: energies of a checkpoint, and how well it transfers."""

from __future__ import annotations

import argparse
from pathlib import Path

from fnqs.cli.command_line import CommandParser, run_command
from fnqs.cli.versions import add_version_option
from fnqs.precision import configure
from fnqs_eval.dmc.command import add_dmc
from fnqs_eval.energies.command import add_energies
from fnqs_eval.observables.command import add_observables
from fnqs_eval.observables.eos_command import add_eos
from fnqs_eval.observables.label import add_label
from fnqs_eval.report.report import write_report
from fnqs_eval.transfer.protocol import describe_protocol
from fnqs_eval.transfer.protocol_command import run_protocol
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint
from fnqs_train.checkpointing.publish import publish
from fnqs_train.models.shipped import results_folder
from fnqs_train.run_folder import used_alone


def main(arguments: list[str] | None = None) -> int:
    """Entry point of fnqs-evaluate."""
    return run_command("fnqs-evaluate", lambda: _run(arguments))


def _run(arguments: list[str] | None) -> int:
    options = make_parser().parse_args(arguments)
    configure()
    return options.run(options)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of fnqs-evaluate."""
    parser = CommandParser(
        prog="fnqs-evaluate",
        description="Energies of a trained wave function, with reblocked error bars.\n"
        "Energies are in Ha per atom, variances in Ha^2 per atom, lengths in bohr.",
    )
    add_version_option(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_energies(commands)
    add_dmc(commands)
    add_observables(commands)
    add_eos(commands)
    add_label(commands)
    _add_transfer(commands)
    _add_report(commands)
    _add_publish(commands)
    return parser


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
