"""Observables of many configurations one after the other, at one or many twists, with a journal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from fnqs.cli.notation import with_error
from fnqs.periodic.cell import cell_volume
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.record import Record
from fnqs_eval.energies.journal import Journal
from fnqs_eval.energies.sampling_progress import SamplingProgress
from fnqs_eval.energies.twists import TwistSet
from fnqs_eval.observables.estimates import ROUGH, curves, density, quantities
from fnqs_eval.observables.finite_size import corrections
from fnqs_eval.observables.result import ObservablesResult, average
from fnqs_eval.observables.sample import ObservableSettings, Samples, sample

OnSamples = Callable[[int, Samples, np.ndarray, np.ndarray], None]
"""Called with the place of a configuration, its samples, its density and its spin density in 1/bohr^3."""


def observe_with_journal(
    wavefunction: WaveFunction,
    params: dict,
    records: Sequence[Record],
    settings: ObservableSettings,
    journal: Journal,
    announce: Callable[[str], None],
    on_samples: OnSamples | None = None,
) -> list[ObservablesResult]:
    """Measure what the journal does not hold yet; results in the order of the records."""
    waiting = [place for place in range(len(records)) if place not in journal.results]
    if len(waiting) < len(records):
        announce(f"{len(records) - len(waiting)} of {len(records)} configurations are in {journal.path} already")
    numbers = [records[place].n_atoms for place in waiting]
    progress = SamplingProgress(announce, numbers, before=len(records) - len(waiting))
    for place in waiting:
        samples = sample(wavefunction, params, records[place], settings, progress)
        if on_samples is not None and samples.sums:
            on_samples(place, samples, *density(samples))
        journal.append({place: summarise(samples, settings)})
        progress.finished([records[place].n_atoms])
    return [journal.results[place] for place in range(len(records))]


def observe_records(
    wavefunction: WaveFunction,
    params: dict,
    records: Sequence[Record],
    settings: ObservableSettings,
    announce: Callable[[str], None] = lambda text: None,
) -> list[ObservablesResult]:
    """Measure every record; arguments as above, without a journal."""
    progress = SamplingProgress(announce, [record.n_atoms for record in records])
    results = []
    for record in records:
        results.append(summarise(sample(wavefunction, params, record, settings, progress), settings))
        progress.finished([record.n_atoms])
    return results


def summarise(samples: Samples, settings: ObservableSettings) -> ObservablesResult:
    """Make a result of the samples of one configuration."""
    record = samples.record
    x, y, z = (float(turn) for turn in np.asarray(record.configuration.twist))
    result = ObservablesResult(
        identifier=record.identifier,
        number=record.n_atoms,
        density_parameter=record.wigner_seitz_radius,
        volume=abs(float(cell_volume(np.asarray(record.configuration.cell)))),
        phase=record.phase,
        twist=(x, y, z),
        quantities=quantities(samples),
        curves=curves(samples),
        acceptance=samples.acceptance,
    )
    result = dataclasses.replace(result, flags=_flags(samples, result, settings))
    return with_finite_size(result, np.asarray(record.configuration.cell))


def with_twist_averages(
    results: Sequence[ObservablesResult], records: Sequence[Record], sets: Sequence[TwistSet]
) -> list[ObservablesResult]:
    """Put the average of a configuration after its twists."""
    waiting, rows = iter(results), []
    for record, twists in zip(records, sets, strict=True):
        members = [dataclasses.replace(next(waiting), weight=float(weight)) for weight in twists.weights]
        rows += [*members, with_finite_size(average(members, twists), np.asarray(record.configuration.cell))]
    return rows


def with_finite_size(result: ObservablesResult, cell: np.ndarray) -> ObservablesResult:
    """Add the corrections that follow from the result's own structure factor, where it has one."""
    found = result.curves.get("s_fluctuating")
    if found is None or not np.all(np.isfinite(found.values)):
        return result
    errors = np.nan_to_num(np.asarray(found.errors), nan=0.0)
    recipes = corrections(
        cell, result.number, np.asarray(result.curves["wave"].values), np.asarray(found.values), errors
    )
    rows = [dataclasses.asdict(recipe) | {"total": recipe.total} for recipe in recipes]
    return dataclasses.replace(result, finite_size=rows)


def _flags(samples: Samples, result: ObservablesResult, settings: ObservableSettings) -> list[str]:
    flags, start = [], samples.verdict
    if not start.settled:
        flags.append(f"not equilibrated after {start.sweeps} sweeps")
    if samples.lost:
        flags.append(f"{samples.lost} samples were not finite and were left out")
    energy, error = result.value("energy")
    if not math.isfinite(energy):
        flags.append("no walker has a finite local energy")
    elif error > settings.target_error:
        flags.append(f"stopped before the error bar reached {settings.target_error * 1e3:g} mHa per atom")
    if not 0.2 <= samples.acceptance <= 0.8:
        flags.append(f"acceptance {samples.acceptance:.2f} is far from 0.50")
    if "roughness" in result.quantities:
        rough = np.asarray(result.quantities["roughness"].values)
        if np.any(rough[:6] > ROUGH):
            flags.append(
                "psi has a kink under some strains (the smooth distance has one in cells with right angles): the mean "
                "of both sides is taken"
            )
        if np.any(rough[6:] > ROUGH):
            flags.append("psi jumps or has a kink where some protons move: their forces are doubtful")
    net = result.quantities.get("net_force")
    if net is not None:
        ratio = np.asarray(net.values) / np.asarray(net.errors)
        if np.any(np.abs(ratio) > 4):
            worst = int(np.argmax(np.abs(ratio)))
            told = with_error(float(np.asarray(net.values)[worst]), float(np.asarray(net.errors)[worst]))
            flags.append(f"the net force is {told} Ha/bohr, not zero within its error")
    return flags
