"""Energies of many configurations, at one or many twists: resumable, with averages, differences and judgements."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from fnqs.precision import cache_folder
from fnqs.wavefunction import WaveFunction
from fnqs_data.generate.recipe import read_recipe
from fnqs_data.store.manifest import text_digest
from fnqs_data.store.record import Record
from fnqs_data.store.store import Dataset, open_dataset
from fnqs_eval.energies.energy import EvaluationSettings, evaluate_in_turns
from fnqs_eval.energies.journal import Journal
from fnqs_eval.energies.reliability import TrainingDistribution, judge
from fnqs_eval.energies.sampling_progress import SamplingProgress
from fnqs_eval.energies.statistics import v_score
from fnqs_eval.energies.table import EnergyResult
from fnqs_eval.energies.twists import TwistSet, twist_average
from fnqs_train.config import RunConfig, recipe_path

Reference = Literal["first", "lowest"]
"""The configuration from which energy differences are taken: the first one, or that of the lowest energy."""


def at_twists(records: Sequence[Record], sets: Sequence[TwistSet]) -> list[Record]:
    """Every record at every twist of its set, one record's twists after the other's."""
    return [
        dataclasses.replace(record, configuration=dataclasses.replace(record.configuration, twist=twist))
        for record, twists in zip(records, sets, strict=True)
        for twist in twists.twists
    ]


def settings_at_twists(settings: EvaluationSettings, sets: Sequence[TwistSet]) -> EvaluationSettings:
    """Choose the error of each single twist with which every average reaches the one asked for."""
    return dataclasses.replace(settings, target_error=settings.target_error * error_share(sets))


def error_share(sets: Sequence[TwistSet]) -> float:
    """How much larger the errors of single twists may be than those of their averages."""
    return min(1 / float(np.sqrt(np.sum(twists.weights**2))) for twists in sets)


def evaluate_with_journal(
    wavefunction: WaveFunction,
    params: dict,
    records: Sequence[Record],
    settings: EvaluationSettings,
    journal: Journal,
    announce: Callable[[str], None],
) -> list[EnergyResult]:
    """Evaluate what the journal does not hold yet, and return all results in the order of the records."""
    waiting = {place: record for place, record in enumerate(records) if place not in journal.results}
    if len(waiting) < len(records):
        announce(f"{len(records) - len(waiting)} of {len(records)} energies are in {journal.path} already")
    numbers = [record.n_atoms for record in waiting.values()]
    progress = SamplingProgress(announce, numbers, before=len(records) - len(waiting))
    for batch in evaluate_in_turns(wavefunction, params, waiting, settings, steps=0, progress=progress):
        journal.append(batch)
        progress.finished([records[place].n_atoms for place in batch])
    return [journal.results[place] for place in range(len(records))]


def with_averages(results: Sequence[EnergyResult], sets: Sequence[TwistSet]) -> list[EnergyResult]:
    """Give each result its weight and put the average of a configuration after its twists."""
    waiting, rows = iter(results), []
    for twists in sets:
        members = [dataclasses.replace(next(waiting), weight=float(weight)) for weight in twists.weights]
        rows += [*members, _average(members, twists)]
    return rows


def averages(rows: Sequence[EnergyResult]) -> list[EnergyResult]:
    """One row a configuration: its average over twists, or its only energy."""
    return [row for row in rows if _is_total(row)]


def finish(
    rows: Sequence[EnergyResult],
    records: Sequence[Record],
    distribution: TrainingDistribution | None,
    relative_to: Reference,
) -> list[EnergyResult]:
    """Add the distance from the training set, the judgement, the label's convention and E - E_reference.

    Args:
        rows: results, every configuration's twists together and in the order of the records.
        records: one a configuration.
        distribution: of the training set, or None where it is not at hand.
        relative_to: the reference configuration.
    """
    distances = [None if distribution is None else distribution.distance(record) for record in records]
    finished, place = [], 0
    for row in rows:
        convention = label_convention(records[place])
        known = dataclasses.replace(row, distance=distances[place], label_convention=convention)
        finished.append(dataclasses.replace(known, reliability=judge(known)))
        place += _is_total(row)  # the last row of a configuration
    totals = averages(finished)
    usable = [total for total in totals if math.isfinite(total.energy_per_atom)]
    if len(totals) < 2 or not usable:
        return finished
    reference = totals[0] if relative_to == "first" else min(usable, key=lambda total: total.energy_per_atom)
    return [_relative(row, reference) if _is_total(row) else row for row in finished]


def label_convention(record: Record) -> str:
    """Say how a label was computed, as far as its file tells; empty where there is no label."""
    if record.energy is None:
        return ""
    corrections = {
        True: "finite-size corrections included",
        False: "without finite-size corrections",
        None: "finite-size corrections and twists not stated",
    }[record.corrected]
    return f"{record.method or 'method not stated'}, {corrections}"


def known_dataset(config: RunConfig) -> Dataset | None:
    """Open the data set that a run was trained on if it is on this machine; it is not built for this."""
    source = recipe_path(config) if Path(config.data.recipe).exists() else None
    if source is None:
        return None
    if source.is_dir():
        return open_dataset(source)
    recipe, text = read_recipe(source)
    parent = Path(config.data.cache) if config.data.cache else cache_folder() / "datasets"
    digest = text_digest(text)
    for folder in sorted(parent.glob(f"{recipe.name}-*")):
        if folder.is_dir():
            dataset = open_dataset(folder)
            if dataset.manifest.recipe_digest == digest:
                return dataset
    return None


def _average(members: Sequence[EnergyResult], twists: TwistSet) -> EnergyResult:
    first = members[0]
    energies = np.array([member.energy_per_atom for member in members])
    energy, error = twist_average(energies, np.array([member.error_per_atom for member in members]), twists)
    variance = float(np.sum(twists.weights * [member.variance_per_atom for member in members]))
    samples = [member.effective_samples for member in members if member.effective_samples is not None]
    flags = [f"mean over twists: {twists.description}; the same twist for both spins"]
    doubtful = sum(bool(member.flags) for member in members)
    if doubtful:
        flags.append(f"{doubtful} of its {len(members)} twists have remarks of their own")
    if twists.random and len(members) == 1:
        flags.append("one random twist does not tell the scatter between twists")
    return dataclasses.replace(
        first,
        twist=None,
        weight=float(np.sum(twists.weights)),
        energy_per_atom=energy,
        error_per_atom=error,
        variance_per_atom=variance,
        acceptance=float(np.sum(twists.weights * [member.acceptance for member in members])),
        v_score=v_score(energy * first.number, variance * first.number, first.number),
        effective_samples=float(np.sum(samples)),
        flags=flags,
    )


def _is_total(row: EnergyResult) -> bool:
    return row.twist is None or row.weight is None


def _relative(result: EnergyResult, reference: EnergyResult) -> EnergyResult:
    if result is reference:
        return dataclasses.replace(result, relative_energy=0.0, relative_error=0.0)
    return dataclasses.replace(
        result,
        relative_energy=result.energy_per_atom - reference.energy_per_atom,
        relative_error=float(np.hypot(result.error_per_atom, reference.error_per_atom)),
    )
