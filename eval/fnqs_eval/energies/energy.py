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

from fnqs.system import System, make_system, stack_systems
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.record import Record
from fnqs_eval.energies.sampling_progress import SamplingProgress
from fnqs_eval.energies.slots import MEASUREMENTS, group_size, make_equilibration, make_measure, make_slot_mesh
from fnqs_eval.energies.statistics import Estimate, reblocked_error, v_score
from fnqs_eval.energies.table import EnergyResult
from fnqs_train.chunks import choose_chunks

TOGETHER, TOGETHER_ACCELERATED = 2**12, 2**18
"""Electrons (walkers times N) in the slots of a device: of a processor core, of an accelerator. The rest wait."""


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
        sampler = _Sampler(wavefunction, params, settings, number, twisted, len(places), progress)
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
class _Active:
    """A configuration in a slot, with what was measured so far."""

    record: Record
    energies: list[np.ndarray] = field(default_factory=list)
    acceptance: list[float] = field(default_factory=list)
    estimate: Estimate | None = None

    def add(self, energies: np.ndarray, acceptance: float, settings: EvaluationSettings) -> bool:
        """Take energies (MEASUREMENTS, n) in Ha; whether no more are needed."""
        self.energies.append(energies)
        self.acceptance.append(acceptance)
        self.estimate = _estimate(np.real(_finite(np.concatenate(self.energies))) / self.record.n_atoms)
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
        energies = _finite(joined)
        variance = float(np.var(energies)) if energies.size else math.nan
        acceptance = float(np.mean(self.acceptance))
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
            flags=_flags(joined, estimate, settings, acceptance),
            steps=steps,
        )


class _Sampler:
    """Slots for the configurations of one N and one kind of twist, the same number on every device.

    Active configurations are counted from 0; the groups of slots that they fill go to the devices in turns, so that all
    have the same to do. `slot_of` says which slot a count means.
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
        self.devices = mesh.size
        slots = max(1, min(-(-waiting // self.devices), together // (settings.walkers * number)))
        self.group = group_size(slots, settings.walkers, number)
        groups = -(-slots // self.group)
        self.slots = self.devices * groups * self.group
        by_device = np.arange(self.slots).reshape(self.devices, groups, self.group)
        self.slot_of = by_device.swapaxes(0, 1).ravel()
        self.equilibrate = make_equilibration(
            wavefunction,
            settings.walkers,
            settings.equilibration_sweeps,
            settings.target_acceptance,
            self.group,
            mesh,
        )
        chunk = choose_chunks(number, wavefunction.config).energy
        self.measure = make_measure(wavefunction, settings.sweeps_between, chunk, self.group, mesh)

    def run(self, tasks: Sequence[tuple[int, Record]]) -> Iterator[list[tuple[int, _Active]]]:
        """Yield the finished ones after every part in which there were some."""
        turns = [list(tasks[start : start + self.slots]) for start in range(0, len(tasks), self.slots)]
        with ThreadPoolExecutor(1) as executor:  # integrals of the next turn, while this one is sampled
            coming: deque[tuple[list[tuple[int, Record]], Future[System] | None]] = deque(
                (turn, None) for turn in turns
            )
            ready: deque[tuple[int, Record, tuple]] = deque()
            state: tuple | None = None
            active: list[tuple[int, _Active]] = []
            while coming or ready or active:
                while len(active) < self.slots and (ready or coming):
                    if not ready:
                        turn, prepared = coming.popleft()
                        if state is None:
                            self.progress.doing(f"integrals of {len(turn)} configurations, N = {self.number}")
                        systems = prepared.result() if prepared else self._prepare(turn)
                        if coming:
                            coming[0] = (coming[0][0], executor.submit(self._prepare, coming[0][0]))
                        ready.extend(self._equilibrated(turn, systems))
                    place, record, own = ready.popleft()
                    if state is None:
                        state = _empty(own, self.slots)
                    _put(state, int(self.slot_of[len(active)]), own)
                    active.append((place, _Active(record)))
                assert state is not None
                finished = self._part(state, [item for _, item in active])
                if any(finished):
                    yield [item for item, done in zip(active, finished, strict=True) if done]
                    kept = [count for count, done in enumerate(finished) if not done]
                    for new, old in zip(self.slot_of.tolist(), self.slot_of[kept], strict=False):
                        _put(state, new, jax.tree.map(lambda leaf, old=old: leaf[old], state))
                    active = [active[count] for count in kept]

    def _prepare(self, turn: Sequence[tuple[int, Record]]) -> System:
        systems = [make_system(record.configuration, self.model, force_complex=self.twisted) for _, record in turn]
        return stack_systems([systems[min(count, len(turn) - 1)] for count in np.argsort(self.slot_of)])

    def _equilibrated(self, turn, systems: System) -> Iterator[tuple[int, Record, tuple]]:
        """Walkers and all else that a slot holds, for every configuration of a turn."""
        seeds = np.zeros(self.slots, np.uint32)
        seeds[self.slot_of[: len(turn)]] = [configuration_seed(record, self.settings.seed) for _, record in turn]
        self.progress.program("equilibration", self.number, self.twisted)
        found = self.equilibrate(self.params, systems, seeds, self._groups(len(turn)))
        contexts, walkers, widths = jax.tree.map(np.asarray, found)
        state = (contexts, systems, walkers, widths, seeds, np.ones(self.slots, np.uint32))
        for slot, (place, record) in zip(self.slot_of, turn, strict=False):
            yield place, record, jax.tree.map(lambda leaf, slot=slot: leaf[slot], state)

    def _part(self, state: tuple, active: Sequence[_Active]) -> list[bool]:
        """Measure all that is active, and say of each whether it is done."""
        _, _, walkers, _, _, parts = state
        began, compiles = time.monotonic(), self.progress.program("measurement", self.number, self.twisted)
        moved, energies, acceptance = self.measure(self.params, *state, self._groups(len(active)))
        walkers[...], energies, acceptance = np.asarray(moved), np.asarray(energies), np.asarray(acceptance)
        parts += np.uint32(1)
        finished = [
            item.add(energies[:, slot], float(acceptance[slot]), self.settings)
            for slot, item in zip(self.slot_of, active, strict=False)
        ]
        errors = [item.estimate.error for item in active if item.estimate is not None]
        self.progress.part(
            self.number,
            [item.fraction(self.settings) for item in active],
            max(errors),
            None if compiles else time.monotonic() - began,
        )
        return finished

    def _groups(self, count: int) -> np.ndarray:
        """How many groups each device (D,) has to go through for so many active configurations."""
        filled = -(-count // self.group)
        return np.array([len(range(device, filled, self.devices)) for device in range(self.devices)], np.int32)


def _empty(own: tuple, slots: int) -> tuple:
    """Make room for so many slots like the one given."""
    return jax.tree.map(lambda leaf: np.zeros((slots, *leaf.shape), leaf.dtype), own)


def _put(state: tuple, slot: int, own: tuple) -> None:
    for leaf, values in zip(jax.tree.leaves(state), jax.tree.leaves(own), strict=True):
        leaf[slot] = values


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
