"""The commands fnqs-train and fnqs-finetune."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import get_args

from fnqs.cli.command_line import CommandParser, positive_float, positive_int, run_command
from fnqs.cli.settings import to_table, to_toml
from fnqs.cli.text_streams import lasting
from fnqs.cli.versions import add_version_option
from fnqs.errors import InputError
from fnqs.optimisation.subspace import TrainedPart
from fnqs.precision import configure
from fnqs_data.store.store import Dataset
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_meta
from fnqs_train.command_options import add_checkpoint_argument, add_configuration_options
from fnqs_train.config import (
    CONFIG_NAME,
    RunConfig,
    changed_keys,
    describe_config,
    load_config,
)
from fnqs_train.distributed.broadcast import broadcast_result
from fnqs_train.distributed.processes import Place, add_process_options, find_place
from fnqs_train.distributed.session import distributed_session
from fnqs_train.distributed.stopping import Stopped
from fnqs_train.finetune import (
    DATASET_NAME,
    converged,
    convergence_sentence,
    finetune_config,
    is_finetuning,
    resumed_config,
    training_set,
)
from fnqs_train.loading import load_dataset, load_params, read_selected
from fnqs_train.loop import train
from fnqs_train.monitoring.convergence import WINDOW
from fnqs_train.run_folder import delete_run, is_empty, refuse_changes, steps_done, used_alone

RUNS = Path("runs")
"""Folder, in the current one, of runs whose place is not given."""


def train_main(arguments: list[str] | None = None) -> int:
    """Entry point of fnqs-train."""
    return run_command("fnqs-train", lambda: _train(arguments))


def finetune_main(arguments: list[str] | None = None) -> int:
    """Entry point of fnqs-finetune."""
    return run_command("fnqs-finetune", lambda: _finetune(arguments))


def train_parser() -> argparse.ArgumentParser:
    """Make the parser of fnqs-train."""
    parser = CommandParser(
        prog="fnqs-train",
        description="Train one wave function over all configurations of a data set.\n\n"
        "  fnqs-train configs/quickstart.toml\n"
        "  fnqs-train configs/quickstart.toml --set steps=500 optimizer.damping=1e-2\n"
        "  fnqs-train configs/quickstart.toml --resume\n\n"
        "Writes a run folder: config.toml and recipe.toml (what was run), metrics.jsonl (energies in Ha per\n"
        "atom, variances in Ha^2 per atom, seconds), checkpoints/<step>. Data sets are built when needed.",
        epilog=describe_config(),
    )
    add_version_option(parser)
    parser.add_argument("config", metavar="CONFIG", help="TOML file of the run; its keys are listed below")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="replace values of the config",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        help="run folder; runs/<name> in the current folder if not given",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the latest checkpoint of the run folder")
    again.add_argument("--restart", action="store_true", help="delete the run folder and train anew")
    add_process_options(parser)
    return parser


def _train(arguments: list[str] | None) -> int:
    options = train_parser().parse_args(arguments)
    place = find_place(os.environ, options.processes, options.process, options.coordinator)
    config = load_config(options.config, options.overrides)
    run_folder = options.output or RUNS / config.name
    configure(tf32=config.precision.tf32)
    settings = to_toml(to_table(dataclasses.replace(config, data=dataclasses.replace(config.data, recipe=""))))
    identity = hashlib.blake2b(f"{options.resume} {options.restart} {settings}".encode()).hexdigest()
    with distributed_session("fnqs-train", place, identity):
        return _train_as(place, config, run_folder, options)


def _train_as(place: Place, config: RunConfig, run_folder: Path, options: argparse.Namespace) -> int:
    """Train as one of the processes of a run; the first one looks after the run folder."""
    with used_alone(run_folder, "fnqs-train") if place.first else nullcontext():
        if not broadcast_result(lambda: _prepare_run(config, run_folder, options)):
            return 0
        dataset = load_dataset(config)
        if place.first:
            chosen = len(dataset.where(split=config.data.split))
            shared = f", {place.processes} processes" if place.processes > 1 else ""
            _say(f"{chosen} configurations of {dataset.folder} to train on, {config.steps} steps{shared}")
            _say(f"run folder {run_folder}")
        with _advice(place.first):
            train(config, run_folder, dataset, resume=options.resume)
    if place.first:
        _say(f"done: {run_folder}; next: fnqs-evaluate transfer {run_folder}")
    return 0


def _say(text: str) -> None:
    """Print a line; a reader who has left does not stop a training."""
    print(text, file=lasting(sys.stdout), flush=True)


@contextmanager
def _advice(wanted: bool = True) -> Iterator[None]:
    """Say how to go on with a training that was asked to stop, once all of it is on the disk."""
    try:
        yield
    except Stopped:
        if wanted:
            _say("go on with the same command and --resume")
        raise


def _prepare_run(config: RunConfig, run_folder: Path, options: argparse.Namespace) -> bool:
    """Clear or check the run folder; returns whether there is anything to train.

    Raises:
        InputError: it holds a run that must not be touched.
    """
    if options.restart:
        delete_run(run_folder)
    done = steps_done(run_folder)
    if done is not None and not options.resume:
        if done >= config.steps and not changed_keys(load_config(run_folder), config):
            _say(f"{run_folder} is complete, {done} steps; train it anew with --restart")
            return False
        raise InputError(
            f"{run_folder}: there is a run already, at step {done}; go on with --resume, train anew with "
            f"--restart, or choose another folder with --output"
        )
    if options.resume and (run_folder / CONFIG_NAME).exists():
        refuse_changes(load_config(run_folder), config, run_folder)
    return True


def finetune_parser() -> argparse.ArgumentParser:
    """Make the parser of fnqs-finetune."""
    parser = CommandParser(
        prog="fnqs-finetune",
        description="Adapt a trained wave function to configurations of your own, in a few steps.\n\n"
        "  fnqs-finetune foundation --configurations my.extxyz --steps 100\n"
        "  fnqs-evaluate energies runs/finetune-my --configurations my.extxyz\n\n"
        "The checkpoint is left as it is; the result is a run folder of its own that records its parent and holds\n"
        "the configurations. One that was stopped or killed goes on with the same command and --resume, or with\n"
        "its folder alone, wherever that was moved:\n\n"
        "  fnqs-finetune runs/finetune-my --resume",
    )
    add_version_option(parser)
    add_checkpoint_argument(parser)
    add_configuration_options(parser, required=False)
    parser.add_argument(
        "--steps", type=positive_int, help="optimisation steps in all, at most those with --until (default 100)"
    )
    parser.add_argument(
        "--until",
        metavar="GAIN",
        type=positive_float,
        help=f"stop by itself when the mean energy of {WINDOW} steps lies less than this below that of the {WINDOW} "
        "before, Ha per atom, both known to that accuracy (default: do all steps)",
    )
    parser.add_argument("--walkers", type=positive_int, help="walkers of each configuration (default 128)")
    parser.add_argument(
        "--together",
        type=positive_int,
        help="configurations that meet in a step, at most (default 4)",
    )
    parser.add_argument(
        "--learning-rate",
        type=positive_float,
        help="natural-gradient step, 1/Ha (default: that of the parent run)",
    )
    parser.add_argument(
        "--train",
        choices=get_args(TrainedPart),
        help="what is trained: all parameters, only those of the pairing head and the Jastrow factor, or low-rank "
        "changes of every kernel (default all)",
    )
    parser.add_argument(
        "--rank", type=positive_int, help="of the low-rank changes (default: that of the parent run, usually 4)"
    )
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, help="run folder (default runs/finetune-<name of the file>)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the latest checkpoint of the run folder, with its settings"
    )
    return parser


def _finetune(arguments: list[str] | None) -> int:
    options = finetune_parser().parse_args(arguments)
    configure()
    if options.configurations is None and not options.resume:
        raise InputError("the following arguments are required: --configurations (see `fnqs-finetune --help`)")
    return _go_on(options) if options.resume else _begin(options)


def _begin(options: argparse.Namespace) -> int:
    """Start a fine-tuning in a new folder."""
    checkpoint = resolve_checkpoint(options.checkpoint)
    parent = load_config(checkpoint.run_folder)
    records = read_selected(options.configurations, options.frames)
    run_folder = options.output or RUNS / f"finetune-{options.configurations.stem}"
    with used_alone(run_folder, "fnqs-finetune"):
        if not is_empty(run_folder):
            raise InputError(
                f"{run_folder}: the folder is not empty; go on with what is there with --resume, or choose another one "
                f"with --output"
            )
        params = load_params(checkpoint, parent)
        config = _new_config(options, parent, run_folder)
        dataset = training_set(run_folder, records, options.configurations)
        origin = f"{checkpoint.run_folder.name} step {checkpoint.step}"
        _say(f"{len(records)} configurations, {config.steps} steps from {origin}")
        return _tune(options, config, run_folder, dataset, params, origin)


def _go_on(options: argparse.Namespace) -> int:
    """Go on with a fine-tuning: that of the same command, or the one whose folder is given."""
    given = options.output or (RUNS / f"finetune-{options.configurations.stem}" if options.configurations else None)
    run_folder: Path = given or options.checkpoint
    if not run_folder.is_dir():
        raise InputError(f"{run_folder}: there is no fine-tuning to resume; check the spelling of the path")
    records = read_selected(options.configurations, options.frames) if options.configurations else None
    with used_alone(run_folder, "fnqs-finetune"):
        if given is None and not is_finetuning(run_folder):
            raise InputError(
                f"{run_folder}: not the folder of a fine-tuning; give that, or the whole command again with --resume"
            )
        dataset = training_set(run_folder, records, options.configurations)
        done = steps_done(run_folder)
        if not done:  # killed before anything was saved: the start is still that of the parent
            if given is None:
                raise InputError(
                    f"{run_folder}: nothing was saved before it ended; give the whole command again with --resume"
                )
            checkpoint = resolve_checkpoint(options.checkpoint)
            parent = load_config(checkpoint.run_folder)
            origin, params = f"{checkpoint.run_folder.name} step {checkpoint.step}", load_params(checkpoint, parent)
            config = _new_config(options, parent, run_folder)
        else:
            named = ("walkers", "together", "learning_rate", "train", "rank")
            settings = {name.replace("_", "-"): getattr(options, name) for name in named}
            again = {name: value for name, value in settings.items() if value is not None}
            config = resumed_config(run_folder, options.steps, again)
            saved = resolve_checkpoint(run_folder)
            origin, params = restore_meta(saved)["parent"], load_params(saved, config)
        _say(f"{len(dataset)} configurations, from step {done or 0} on to {config.steps}")
        return _tune(options, config, run_folder, dataset, params, origin)


def _new_config(options: argparse.Namespace, parent: RunConfig, run_folder: Path) -> RunConfig:
    return finetune_config(
        parent,
        name=run_folder.resolve().name,
        recipe=str((run_folder / DATASET_NAME).resolve()),
        steps=options.steps or 100,
        walkers=options.walkers or 128,
        together=options.together or 4,
        learning_rate=options.learning_rate,
        part=options.train or "all",
        rank=options.rank,
    )


def _tune(
    options: argparse.Namespace, config: RunConfig, run_folder: Path, dataset: Dataset, params: dict, parent: str
) -> int:
    """Train, from these parameters or from the checkpoint of the folder, and say what comes next."""
    enough = None if options.until is None else converged(run_folder, options.until)
    with _advice():
        train(config, run_folder, dataset, resume=options.resume, params=params, parent=parent, enough=enough)
    if options.until is not None:
        _say(convergence_sentence(run_folder, options.until))
    _say(f"done: {run_folder}")
    _say(f"next: fnqs-evaluate energies {run_folder} --configurations {options.configurations or 'FILE'}")
    return 0


if __name__ == "__main__":
    sys.exit(train_main())
