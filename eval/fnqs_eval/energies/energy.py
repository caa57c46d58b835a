"""Energies of configurations with fixed parameters, from long sampling of their own with reblocked errors."""

from __future__ import annotations

import math
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import jax
import numpy as np

from fnqs.cli.notation import with_error
from fnqs.sampling.equilibration import Verdict, longest
from fnqs.system import System, make_system, stack_systems
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.record import Record
from fnqs_eval.energies.equilibrate import equilibrate
from fnqs_eval.energies.sampling_progress import SamplingProgress
from fnqs_eval.energies.slots import (
    MEASUREMENTS,
    Slots,
    group_size,
    make_measure,
    make_sampling,
    make_slot_mesh,
    make_start,
    put,
)
from fnqs_eval.energies.statistics import Estimate, mended, reblocked_error, v_score
from fnqs_eval.energies.table import EnergyResult
from fnqs_train.chunks import choose_chunks

TOGETHER, TOGETHER_ACCELERATED = 2**12, 2**18
"""Electrons (walkers times N) in the slots of a device: of a processor core, of an accelerator. The rest wait."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How long to sample.

    Attributes:
        walkers: of each configuration.
        equilibration_sweeps: moves before anything counts, at least; how many more is decided by what is measured.
        sweeps_between: all-electron moves between two local energies of a walker.
        target_error: standard error of E/N (Ha) at which sampling stops.
        max_measurements: local energies of a walker after which it stops anyway.
        target_acceptance: to which step widths are tuned while equilibrating.
        seed: of walkers and moves.
        equilibration_limit: moves after which equilibration is given up, and the result flagged; None for as many as N
            and density ask for (`longest`).
    """

    walkers: int = 256
    equilibration_sweeps: int = 0
    sweeps_between: int = 10
    target_error: float = 1e-3
    max_measurements: int = 512
    target_acceptance: float = 0.5
    seed: int = 0
    equilibration_limit: int | None = None

    def limits(self, record: Record) -> tuple[int, int]:
        """Fewest and most moves before the energies of a configuration count."""
        most = self.equilibration_limit
        if most is None:
            most = longest(record.n_atoms, record.wigner_seitz_radius)
        return self.equilibration_sweeps, most


def evaluate_records(
    wavefunction: WaveFunction,
    params: dict,
    records: Sequence[Record],
    settings: EvaluationSettings,
    *,
    steps: int | None = None,
    announce: Callable[[str], None] = lambda text: None,
) -> list[EnergyResult]:
    """Evaluate every record; arguments as those of `evaluate_in_turns`.

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
    results: dict[int, EnergyResult] = {}
    for batch in evaluate_in_turns(wavefunction, params, dict(enumerate(records)), settings, steps=steps):
        results.update(batch)
        announce(f"{len(results)} of {len(records)} configurations evaluated")
    return [results[place] for place in range(len(records))]


def evaluate_in_turns(
    wavefunction: WaveFunction,
    params: dict,
    records: dict[int, Record],
    settings: EvaluationSettings,
    *,
    steps: int | None = None,
    progress: SamplingProgress | None = None,
) -> Iterator[dict[int, EnergyResult]]:
    """Yield results as they come; configurations of one N and one kind of twist (none, any) share the slots.

    A configuration that is done leaves its slot to the next one that waits. Its result depends on the configuration
    and the settings only, not on the others.

    Args:
        wavefunction: the model.
        params: its parameters.
        records: configurations by the number under which their results are yielded.
        settings: how long to sample.
        steps: optimisation steps spent on these configurations, for the table; 0 for zero-shot.
        progress: told what is being done.
    """
    progress = progress or SamplingProgress()
    kinds: dict[tuple[int, bool], list[int]] = {}
    for place, record in records.items():
        kinds.setdefault((record.n_atoms, is_twisted(record)), []).append(place)
    for (number, twisted), places in kinds.items():
        sampler = Sampler(wavefunction, params, settings, number, twisted, len(places), progress)
        for batch in sampler.run([(place, records[place]) for place in places]):
            yield {place: active.result(settings, steps) for place, active in batch}


def is_twisted(record: Record) -> bool:
    """Whether the boundary condition is other than periodic, so that the wave function is complex."""
    return bool(np.any(np.asarray(record.configuration.twist)))


def configuration_seed(record: Record, seed: int) -> int:
    """Seed of a configuration's walkers and moves, from its arrays, its name and the seed of the evaluation."""
    configuration = record.configuration
    parts = [np.asarray(part, np.float64).tobytes() for part in (configuration.cell, configuration.protons)]
    twist = np.asarray(configuration.twist, np.float64).tobytes()
    return zlib.crc32(b"".join([*parts, twist, record.identifier.encode(), str(seed).encode()]))


@dataclass
class Active:
    """A configuration in a slot, with what was measured so far.

    Attributes:
        record: the configuration.
        start: on the equilibration of its walkers.
        energies: local energies (MEASUREMENTS, n) of every part, Ha.
        spins: samples of S^2 alike.
        acceptance: of every part.
        estimate: of E/N (Ha) from all of them.
    """

    record: Record
    start: Verdict
    energies: list[np.ndarray] = field(default_factory=list)
    spins: list[np.ndarray] = field(default_factory=list)
    acceptance: list[float] = field(default_factory=list)
    estimate: Estimate | None = None

    def add(self, energies: np.ndarray, spins: np.ndarray, acceptance: float, settings: EvaluationSettings) -> bool:
        """Take energies (MEASUREMENTS, n) in Ha and samples of S^2 alike; whether no more are needed."""
        self.energies.append(energies)
        self.spins.append(spins)
        self.acceptance.append(acceptance)
        self.estimate = _estimate(np.real(mended(np.concatenate(self.energies)).energies) / self.record.n_atoms)
        short = not self.estimate.error > settings.target_error
        return (self.estimate.converged and short) or len(self.energies) * MEASUREMENTS >= settings.max_measurements

    def fraction(self, settings: EvaluationSettings) -> float:
        """How much of the sampling is done, 0 to 1, as far as can be known before its end."""
        assert self.estimate is not None
        share = len(self.energies) * MEASUREMENTS / settings.max_measurements
        error = self.estimate.error
        return min(1.0, max(share, (settings.target_error / error) ** 2 if error > 0 else share))

    def result(self, settings: EvaluationSettings, steps: int | None) -> EnergyResult:
        """Summarise what was measured."""
        assert self.estimate is not None
        record, estimate = self.record, self.estimate
        number, joined = record.n_atoms, np.concatenate(self.energies)
        energies = mended(joined).energies
        variance = float(np.var(energies)) if energies.size else math.nan
        acceptance = float(np.mean(self.acceptance))
        spin = _estimate(mended(np.concatenate(self.spins)).energies)
        return EnergyResult(
            identifier=record.identifier,
            number=number,
            density_parameter=record.wigner_seitz_radius,
            phase=record.phase,
            twist=_triple(record),
            energy_per_atom=estimate.mean,
            error_per_atom=estimate.error,
            variance_per_atom=variance / number,
            acceptance=acceptance,
            v_score=v_score(estimate.mean * number, variance, number),
            label_energy_per_atom=record.energy_per_atom,
            effective_samples=estimate.effective_samples,
            flags=_flags(joined, estimate, settings, acceptance, self.start, number),
            steps=steps,
            equilibration_sweeps=self.start.sweeps,
            spin_memory=self.start.memory,
            spin_memory_error=self.start.memory_error,
            spin_squared=spin.mean,
            spin_squared_error=spin.error,
        )


class Sampler:
    """Slots for the configurations of one N and one kind of twist; active configurations are counted from 0.

    Args:
        wavefunction: the model.
        params: its parameters.
        settings: how long to sample.
        number: N.
        twisted: whether psi is complex.
        waiting: how many configurations there are.
        progress: told what is done.
    """

    def __init__(
        self,
        wavefunction: WaveFunction,
        params: dict,
        settings: EvaluationSettings,
        number: int,
        twisted: bool,
        waiting: int,
        progress: SamplingProgress,
    ):
        self.number, self.progress = number, progress
        self.params, self.settings, self.twisted = params, settings, twisted
        self.model = wavefunction.config
        together = TOGETHER if jax.default_backend() == "cpu" else TOGETHER_ACCELERATED
        mesh = make_slot_mesh()
        own = max(1, min(-(-waiting // mesh.size), together // (settings.walkers * number)))
        group = group_size(own, settings.walkers, number)
        self.slots = Slots(mesh.size, -(-own // group), group)
        chunk = choose_chunks(number, wavefunction.config).energy
        self.start = make_start(wavefunction, settings.walkers, group, mesh)
        self.sample = make_sampling(wavefunction, chunk, group, mesh)
        self.measure = make_measure(wavefunction, settings.sweeps_between, chunk, group, mesh)

    def run(self, tasks: Sequence[tuple[int, Record]]) -> Iterator[list[tuple[int, Active]]]:
        """Yield the finished ones after every part in which there were some."""
        turns = [list(tasks[start : start + self.slots.number]) for start in range(0, len(tasks), self.slots.number)]
        with ThreadPoolExecutor(1) as executor:  # integrals of the next turn, while this one is sampled
            coming: deque[tuple[list[tuple[int, Record]], Future[System] | None]] = deque(
                (turn, None) for turn in turns
            )
            ready: deque[tuple[int, Active, tuple]] = deque()
            state: tuple | None = None
            active: list[tuple[int, Active]] = []
            while coming or ready or active:
                while len(active) < self.slots.number and (ready or coming):
                    if not ready:
                        turn, prepared = coming.popleft()
                        if state is None:
                            self.progress.doing(f"integrals of {len(turn)} configurations, N = {self.number}")
                        systems = prepared.result() if prepared else self.prepare(turn)
                        if coming:
                            coming[0] = (coming[0][0], executor.submit(self.prepare, coming[0][0]))
                        ready.extend(self.equilibrated(turn, systems))
                    place, item, own = ready.popleft()
                    if state is None:
                        state = empty_slots(own, self.slots.number)
                    put(state, int(self.slots.order[len(active)]), own)
                    active.append((place, item))
                assert state is not None
                finished = self.measure_part(state, [item for _, item in active])
                if any(finished):
                    yield [item for item, done in zip(active, finished, strict=True) if done]
                    kept = [count for count, done in enumerate(finished) if not done]
                    for new, old in zip(self.slots.order.tolist(), self.slots.order[kept], strict=False):
                        put(state, new, jax.tree.map(lambda leaf, old=old: leaf[old], state))
                    active = [active[count] for count in kept]

    def prepare(self, turn: Sequence[tuple[int, Record]]) -> System:
        """Integrals of the configurations of a turn (place, record), stacked in the order of the slots."""
        systems = [make_system(record.configuration, self.model, force_complex=self.twisted) for _, record in turn]
        return stack_systems([systems[min(count, len(turn) - 1)] for count in np.argsort(self.slots.order)])

    def equilibrated(self, turn, systems: System) -> Iterator[tuple[int, Active, tuple]]:
        """Walkers and all else that a slot holds, for every configuration of a turn."""
        order, records = self.slots.order, [record for _, record in turn]
        seeds = np.zeros(self.slots.number, np.uint32)
        seeds[order[: len(turn)]] = [configuration_seed(record, self.settings.seed) for record in records]
        self.progress.program("equilibration and measurement", self.number, self.twisted)
        limits = [self.settings.limits(record) for record in records]
        found, verdicts = equilibrate(
            (self.start, self.sample), self.params, systems, seeds, self.slots, limits, self.settings.target_acceptance
        )
        contexts, walkers, widths, parts = found
        state = (contexts, systems, walkers, widths, seeds, parts)
        for slot, (place, record), verdict in zip(order, turn, verdicts, strict=False):
            yield place, Active(record, verdict), jax.tree.map(lambda leaf, slot=slot: leaf[slot], state)

    def measure_part(self, state: tuple, active: Sequence[Active]) -> list[bool]:
        """Measure all that is active, and say of each whether it is done."""
        _, _, walkers, _, _, parts = state
        began = time.monotonic()
        moved, energies, spins, acceptance = self.measure(self.params, *state, self.slots.filled(len(active)))
        walkers[...] = np.asarray(moved)
        energies, spins, acceptance = np.asarray(energies), np.asarray(spins), np.asarray(acceptance)
        parts += np.uint32(1)
        finished = [
            item.add(energies[:, slot], spins[:, slot], float(acceptance[slot]), self.settings)
            for slot, item in zip(self.slots.order, active, strict=False)
        ]
        errors = [item.estimate.error for item in active if item.estimate is not None]
        self.progress.part(
            self.number,
            [item.fraction(self.settings) for item in active],
            max(errors),
            time.monotonic() - began,
        )
        return finished


def empty_slots(own: tuple, slots: int) -> tuple:
    """Make room for so many slots like the one given."""
    return jax.tree.map(lambda leaf: np.zeros((slots, *leaf.shape), leaf.dtype), own)


def _estimate(series: np.ndarray) -> Estimate:
    """Mean and error of a series; NaN where no walker is left, as more sampling would not help."""
    if series.size:
        return reblocked_error(series)
    return Estimate(math.nan, math.nan, math.nan, math.nan, 0.0, 1, converged=True)


def _flags(
    energies: np.ndarray,
    estimate: Estimate,
    settings: EvaluationSettings,
    acceptance: float,
    start: Verdict,
    number: int,
) -> list[str]:
    flags = []
    if not start.settled:
        flags.append(
            f"not equilibrated after {start.sweeps} sweeps: memory of the first spin pattern "
            f"{with_error(start.memory, start.memory_error)}, drift of the energy "
            f"{with_error(1e3 * start.drift, 1e3 * start.drift_error)} mHa per atom"
        )
    left = mended(energies)
    if left.walkers:
        flags.append(
            f"{left.walkers} of {energies.shape[1]} walkers had hardly any finite local energy and were left out"
        )
    if left.lost:
        flags.append(
            f"{left.lost} of {energies.size} local energies were not finite and were left out: at most "
            f"{1e3 * left.bias / number:.1g} mHa per atom if they were as far off as the farthest other"
        )
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
