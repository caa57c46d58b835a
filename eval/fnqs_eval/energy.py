"""Energies of configurations with fixed parameters, from long sampling of their own with reblocked errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.local_energy import local_energies
from fnqs.sampling import metropolis
from fnqs.system import make_system, stack_systems
from fnqs.wavefunction import WaveFunction
from fnqs_data.record import Record
from fnqs_eval.statistics import Estimate, reblocked_error, v_score
from fnqs_eval.table import EnergyResult
from fnqs_train.chunks import choose_chunks
from fnqs_train.config import SamplingConfig
from fnqs_train.step import make_equilibration
from fnqs_train.walkers import START_WIDTH

MEASUREMENTS = 16
"""Local energies taken of every walker between two looks at the error bar."""

TOGETHER = 4096
"""Electrons (walkers times N) sampled at once on a processor; more configurations go in turns."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How long to sample.

    Attributes:
        walkers: of each configuration.
        equilibration_sweeps: all-electron moves before anything counts.
        sweeps_between: all-electron moves between two local energies of a walker.
        target_error: standard error of E/N (Ha) at which sampling stops.
        max_measurements: local energies of a walker after which it stops anyway.
        target_acceptance: to which step widths are tuned while equilibrating.
        seed: of walkers and moves.
    """

    walkers: int = 256
    equilibration_sweeps: int = 200
    sweeps_between: int = 10
    target_error: float = 1e-3
    max_measurements: int = 512
    target_acceptance: float = 0.5
    seed: int = 0


def evaluate_records(
    wavefunction: WaveFunction,
    params: dict,
    records: Sequence[Record],
    settings: EvaluationSettings,
    *,
    steps: int | None = None,
    announce: Callable[[str], None] = lambda text: None,
) -> list[EnergyResult]:
    """Evaluate every record; those of one N and one kind of twist are sampled together.

    Args:
        wavefunction: the model.
        params: its parameters.
        records: configurations with what is known of them.
        settings: how long to sample.
        steps: optimisation steps spent on these configurations, for the table; 0 for zero-shot.
        announce: called with a line of progress now and then.

    Returns:
        results in the order of the records.
    """
    groups: dict[tuple[int, bool], list[int]] = {}
    for place, record in enumerate(records):
        twisted = bool(np.any(np.asarray(record.configuration.twist)))
        groups.setdefault((record.number, twisted), []).append(place)
    results: dict[int, EnergyResult] = {}
    for (number, twisted), places in groups.items():
        sampler = _Sampler(wavefunction, settings, number)
        width = max(1, min(len(places), TOGETHER // (settings.walkers * number)))
        for start in range(0, len(places), width):
            chosen = places[start : start + width]
            padded = chosen + [chosen[-1]] * (width - len(chosen))  # one compiled shape for all turns
            found = sampler.run(params, [records[i] for i in padded], twisted, steps)
            results.update(zip(chosen, found[: len(chosen)], strict=True))
            announce(f"{len(results)} of {len(records)} configurations evaluated")
    return [results[place] for place in range(len(records))]


class _Sampler:
    """Compiled sampling for one N."""

    def __init__(self, wavefunction: WaveFunction, settings: EvaluationSettings, number: int):
        self.wavefunction, self.settings = wavefunction, settings
        sampling = SamplingConfig(
            walkers_per_configuration=settings.walkers,
            equilibration_sweeps=settings.equilibration_sweeps,
            target_acceptance=settings.target_acceptance,
        )
        self.equilibrate = make_equilibration(wavefunction, sampling)
        self.measure = _make_measure(
            wavefunction, settings.sweeps_between, choose_chunks(number, wavefunction.config).energy
        )

    def run(self, params: dict, records: Sequence[Record], twisted: bool, steps: int | None) -> list[EnergyResult]:
        """Sample K records of one N until every error bar is short enough."""
        settings = self.settings
        model = self.wavefunction.config
        systems = stack_systems([make_system(r.configuration, model, force_complex=twisted) for r in records])
        count, number = len(records), records[0].number
        key = jax.random.key(settings.seed)
        walkers = jnp.zeros((count, settings.walkers, number, 3), jnp.float32)
        widths = jnp.full((count,), START_WIDTH, jnp.float32)
        fresh = jnp.ones((count,), bool)
        walkers, widths, _ = self.equilibrate(params, systems, walkers, widths, fresh, jax.random.fold_in(key, 0))
        series: list[np.ndarray] = []
        accepted: list[np.ndarray] = []
        for part in range(1, math.ceil(settings.max_measurements / MEASUREMENTS) + 1):
            walkers, energies, acceptance = self.measure(
                params, systems, walkers, widths, jax.random.fold_in(key, part)
            )
            series.append(np.asarray(energies))
            accepted.append(np.asarray(acceptance))
            joined = np.concatenate(series)  # (T, K, n)
            estimates = [_estimate(np.real(_finite(joined[:, k])) / number) for k in range(count)]
            if all(e.converged and not e.error > settings.target_error for e in estimates):
                break
        results = []
        for k, (record, estimate) in enumerate(zip(records, estimates, strict=True)):
            energies = _finite(joined[:, k])
            variance = float(np.var(energies)) if energies.size else math.nan
            acceptance = float(np.mean([a[k] for a in accepted]))
            results.append(
                EnergyResult(
                    identifier=record.identifier,
                    number=number,
                    density_parameter=record.density_parameter,
                    phase=record.phase,
                    twist=_triple(record),
                    energy_per_atom=estimate.mean,
                    error_per_atom=estimate.error,
                    variance_per_atom=variance / number,
                    acceptance=acceptance,
                    v_score=v_score(estimate.mean * number, variance, number),
                    label_energy_per_atom=None if record.energy is None else record.energy / number,
                    flags=_flags(joined[:, k], estimate, settings, acceptance),
                    steps=steps,
                )
            )
        return results


@cache
def _make_measure(wavefunction: WaveFunction, sweeps: int, chunk: int) -> Callable:
    """Compile measure(params, systems, walkers, widths, key), see `_measure`."""
    return jax.jit(partial(_measure, wavefunction, sweeps, chunk))


def _measure(wavefunction: WaveFunction, sweeps: int, chunk: int, params, systems, walkers, widths, key):
    """Take MEASUREMENTS local energies: walkers, energies (MEASUREMENTS, K, n) in Ha, acceptance (K,)."""
    contexts = jax.vmap(partial(wavefunction.encode, params))(systems)

    def one(walkers, key):
        walkers, acceptance = metropolis(wavefunction, params, contexts, walkers, widths, key, sweeps)
        energies = local_energies(wavefunction, params, contexts, systems, walkers, chunk)
        return walkers, (energies, acceptance)

    walkers, (energies, acceptance) = jax.lax.scan(one, walkers, jax.random.split(key, MEASUREMENTS))
    return walkers, energies, jnp.mean(acceptance, axis=0)


def _finite(energies: np.ndarray) -> np.ndarray:
    """Drop walkers (columns) that ever had a non-finite local energy."""
    return energies[:, np.all(np.isfinite(energies), axis=0)]


def _estimate(series: np.ndarray) -> Estimate:
    """Mean and error of a series; NaN where no walker is left, as more sampling would not help."""
    if series.size:
        return reblocked_error(series)
    return Estimate(math.nan, math.nan, math.nan, math.nan, 0.0, 1, converged=True)


def _flags(energies: np.ndarray, estimate: Estimate, settings: EvaluationSettings, acceptance: float) -> list[str]:
    flags = []
    lost = int(np.sum(~np.all(np.isfinite(energies), axis=0)))
    if lost:
        flags.append(f"{lost} of {energies.shape[1]} walkers had a non-finite local energy and were left out")
    if not estimate.converged:
        flags.append("the sampling is too short for its correlations, so the error bar is a lower bound")
    if estimate.error > settings.target_error:
        flags.append(f"stopped before the error bar reached {settings.target_error * 1e3:g} mHa per atom")
    if not 0.2 <= acceptance <= 0.8:
        flags.append(f"acceptance {acceptance:.2f} is far from {settings.target_acceptance:.2f}")
    return flags


def _triple(record: Record) -> tuple[float, float, float]:
    x, y, z = (float(t) for t in np.asarray(record.configuration.twist))
    return x, y, z
