"""What the commands that sample have in common (energies and dmc): options, results, journal."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, get_args

from fnqs.cli.command_line import nonnegative_int, positive_float, positive_int
from fnqs.errors import InputError
from fnqs.model_config import Spin
from fnqs_data.store.record import Record
from fnqs_eval.energies.journal import SUFFIX, Journal, fingerprint
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_meta
from fnqs_train.checkpointing.steps import CheckpointPath
from fnqs_train.command_options import add_checkpoint_argument, add_configuration_options
from fnqs_train.config import RunConfig, load_config
from fnqs_train.loading import load_params, read_selected, with_spin
from fnqs_train.models.shipped import results_folder


def add_sampling_options(
    parser: argparse.ArgumentParser, *, prefix: str, walkers: int, error: float, stops: str, also: str
) -> None:
    """Add checkpoint, configurations, walkers, error, equilibration, seed, output and restart.

    Args:
        parser: of the command.
        prefix: beginning of the name of the results' file.
        walkers: default number of walkers of a configuration.
        error: default of the standard error of E/N, Ha per atom.
        stops: what is said of this error.
        also: what is written besides the JSON.
    """
    add_checkpoint_argument(parser)
    add_configuration_options(parser)
    parser.add_argument(
        "--walkers", type=positive_int, default=walkers, help=f"walkers of each configuration (default {walkers})"
    )
    parser.add_argument(
        "--error", type=positive_float, default=error, help=f"standard error of E/N, Ha per atom, {stops}"
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
        "--spin",
        choices=get_args(Spin),
        help="total spin, 0 or 1, at Gamma (default: that of the run); for the lower of the two evaluate both",
    )
    parser.add_argument(
        "--seed", type=nonnegative_int, default=0, help="of walkers, moves and random twists (default 0)"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help=f"JSON with the same numbers (default <run folder>/{prefix}-<name of the file>.json); {also} beside it",
    )
    parser.add_argument("--restart", action="store_true", help="forget what a run that was cut off left in its journal")


class Request(NamedTuple):
    """What a command that samples was asked for.

    Attributes:
        checkpoint: the trained model.
        config: of its run, with the spin that was asked for.
        params: its parameters.
        records: the configurations.
        output: where the JSON goes.
    """

    checkpoint: CheckpointPath
    config: RunConfig
    params: dict
    records: list[Record]
    output: Path


def read_request(options: argparse.Namespace, prefix: str, beside: Sequence[str]) -> Request:
    """Read what the options name.

    Args:
        options: with those of `add_sampling_options`.
        prefix: as there.
        beside: suffixes of the files that are written beside the JSON.

    Raises:
        InputError: no or a damaged checkpoint, configurations that cannot be read, or --output with one of the
            suffixes.
    """
    checkpoint = resolve_checkpoint(options.checkpoint)
    output = output_path(options, checkpoint, prefix, beside)
    config = with_spin(load_config(checkpoint.run_folder), options.spin)
    records = read_selected(options.configurations, options.frames)
    return Request(checkpoint, config, load_params(checkpoint, config), records, output)


def output_path(options: argparse.Namespace, checkpoint: CheckpointPath, prefix: str, beside: Sequence[str]) -> Path:
    """Return where the JSON goes; `prefix` and `beside` as those of `read_request`.

    Raises:
        InputError: --output has one of the suffixes of the files beside it.
    """
    name = f"{prefix}-{options.configurations.stem}.json"
    output: Path = options.output or results_folder(checkpoint.run_folder) / name
    if output.suffix in beside:
        raise InputError(f"--output {output}: name the JSON file; the others are written beside it")
    return output


def open_journal(
    options: argparse.Namespace,
    output: Path,
    checkpoint: CheckpointPath,
    settings: Any,
    records: Iterable[Record],
    twists: Any = None,
    from_json: Callable[[Mapping[str, Any]], Any] | None = None,
    to_json: Callable[[Any], Mapping[str, Any]] = dataclasses.asdict,
) -> Journal:
    """Open the journal beside the results, a new one with --restart; see `Journal` and `fingerprint`.

    Raises:
        InputError: the journal is of something else, or damaged.
    """
    path = output.with_name(output.name + SUFFIX)
    if options.restart:
        path.unlink(missing_ok=True)
    return Journal(path, fingerprint(checkpoint, settings, records, twists, options.spin), from_json, to_json)


def provenance_of(checkpoint: CheckpointPath, config: RunConfig, settings: Any, source: Path) -> dict[str, Any]:
    """Where results come from, as JSON values: run, step, file, settings (a dataclass) and versions."""
    return {
        "run": config.name,
        "step": checkpoint.step,
        "checkpoint": restore_meta(checkpoint),
        "configurations": str(source),
        "settings": dataclasses.asdict(settings),
        "versions": {name: version(name) for name in ("fnqs", "jax", "numpy")},
        "spin": f"unpolarised, {config.model.spin}; the same twist for both spins",
    }
