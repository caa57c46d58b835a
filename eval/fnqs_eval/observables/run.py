"""What the commands that measure observables have in common: options, twists, journal."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fnqs.cli.command_line import positive_int
from fnqs.system import check_spin
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.record import Record
from fnqs_eval.energies.evaluate import at_twists, error_share
from fnqs_eval.energies.sampling_command import open_journal, provenance_of
from fnqs_eval.energies.symmetry import reduce_by_symmetry
from fnqs_eval.energies.twists import parse_twists
from fnqs_eval.observables.observe import OnSamples, observe_with_journal, with_twist_averages
from fnqs_eval.observables.result import ObservablesResult, from_json, to_json
from fnqs_eval.observables.sample import ObservableSettings
from fnqs_train.checkpointing.steps import CheckpointPath
from fnqs_train.config import load_config
from fnqs_train.loading import load_params, with_spin


@dataclass(frozen=True)
class Run:
    """What was measured.

    Attributes:
        rows: results; with twists, the average of a configuration after its twists.
        totals: one a configuration.
        provenance: of the numbers, as JSON values.
    """

    rows: list[ObservablesResult]
    totals: list[ObservablesResult]
    provenance: dict[str, Any]


def add_length_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how long to sample, and at which twists."""
    parser.add_argument(
        "--measurements",
        type=positive_int,
        default=256,
        help="measurements of every walker after which it stops in any case (default 256, in groups of 8)",
    )
    parser.add_argument(
        "--between",
        type=positive_int,
        default=10,
        help="all-electron moves between two measurements of a walker (default 10)",
    )
    parser.add_argument(
        "--twists", metavar="SET", help="evaluate at each of these and average, as `fnqs-evaluate energies` does"
    )


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Length and seed of the sampling that the options ask for, as arguments of ObservableSettings."""
    return {
        "walkers": options.walkers,
        "equilibration_sweeps": options.equilibration,
        "sweeps_between": options.between,
        "target_error": options.error,
        "max_measurements": options.measurements,
        "seed": options.seed,
    }


@contextmanager
def measured(
    options: argparse.Namespace,
    checkpoint: CheckpointPath,
    records: Sequence[Record],
    settings: ObservableSettings,
    output: Path,
    on_samples: OnSamples | None = None,
) -> Iterator[Run]:
    """Measure all configurations at all twists; the journal is removed when the caller has written the results.

    Args:
        options: of the command.
        checkpoint: an undamaged one.
        records: the configurations.
        settings: how long, and what.
        output: the journal is beside it.
        on_samples: called with the samples of each one.

    Raises:
        InputError: a twist set, a spin or a journal that is not usable.
    """
    config = with_spin(load_config(checkpoint.run_folder), options.spin)
    twists = parse_twists(options.twists, options.seed) if options.twists is not None else None
    provenance = provenance_of(checkpoint, config, settings, options.configurations)
    sets = [] if twists is None else [reduce_by_symmetry(twists, record.configuration) for record in records]
    tasks = at_twists(records, sets) if sets else list(records)
    if sets:
        settings = dataclasses.replace(settings, target_error=settings.target_error * error_share(sets))
        provenance["twists"] = "; ".join(dict.fromkeys(used.description for used in sets))
    for record in tasks:
        check_spin(record.configuration, config.model)
    params = load_params(checkpoint, config)
    journal = open_journal(options, output, checkpoint, settings, tasks, twists, from_json=from_json, to_json=to_json)
    with journal:
        results = observe_with_journal(
            WaveFunction(config.model), params, tasks, settings, journal, _announce, on_samples
        )
        rows = with_twist_averages(results, records, sets) if sets else results
        totals = [row for row in rows if row.twist is None] if sets else rows
        yield Run(rows, totals, provenance)
        journal.remove()


def _announce(text: str) -> None:
    print(text, file=sys.stderr)
