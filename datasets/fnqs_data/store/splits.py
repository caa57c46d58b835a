"""Which records are held out of training: windows of r_s and temperature, whole phases, whole trajectories."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from fnqs_data.store.record import Record

Window = tuple[float, float]
"""Lowest and highest value, both included."""


@dataclass(frozen=True)
class HeldOut:
    """What training must not see.

    Attributes:
        r_s: windows of r_s (bohr).
        phases: names of whole phases.
        temperature: windows of temperature (K); records without one are in none.
        trajectories: names of whole trajectories.
        trajectory_fraction: share of all trajectories, chosen by a digest of the name, so that the choice
            depends neither on the order nor on the other records. A record outside any trajectory is one itself.
    """

    r_s: tuple[Window, ...] = ()
    phases: tuple[str, ...] = ()
    temperature: tuple[Window, ...] = ()
    trajectories: tuple[str, ...] = ()
    trajectory_fraction: float = 0.0

    def split(self, phase: str, r_s: float, temperature: float | None = None, trajectory: str = "") -> str:
        """Split of a record by itself; phase comes before r_s, temperature and trajectory, in this order."""
        if phase in self.phases:
            return "held-out-phase"
        if _within(r_s, self.r_s):
            return "held-out-density"
        if temperature is not None and _within(temperature, self.temperature):
            return "held-out-temperature"
        if trajectory in self.trajectories or _drawn(trajectory, self.trajectory_fraction):
            return "held-out-trajectory"
        return "train"

    def split_of(self, record: Record) -> str:
        """Split of a record by itself, its identifier serving as trajectory where it has none."""
        return self.split(
            record.phase, record.wigner_seitz_radius, record.temperature, record.trajectory or record.identifier
        )


def split_records(records: Iterable[Record], held_out: HeldOut) -> Iterator[Record]:
    """Yield the records with new splits, no trajectory with frames both in training and held out.

    Where some frames of a trajectory lie in a window, its other frames become "held-out-trajectory".

    Args:
        records: iterated twice, so a list or a data set, not a generator.
        held_out: what training must not see.
    """
    touched = {r.trajectory for r in records if r.trajectory and held_out.split_of(r) != "train"}
    for record in records:
        split = held_out.split_of(record)
        if split == "train" and record.trajectory in touched:
            split = "held-out-trajectory"
        yield replace(record, split=split)


def straddling(records: Iterable[tuple[str, str]]) -> list[str]:
    """Names, in order, of the trajectories with frames in "train" and elsewhere, from (trajectory, split) pairs."""
    splits: dict[str, set[str]] = {}
    for trajectory, split in records:
        if trajectory:
            splits.setdefault(trajectory, set()).add(split)
    return sorted(name for name, found in splits.items() if "train" in found and len(found) > 1)


def _within(value: float, windows: tuple[Window, ...]) -> bool:
    return any(low <= value <= high for low, high in windows)


def _drawn(name: str, fraction: float) -> bool:
    """Whether a name belongs to a fraction of all names."""
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    return bool(name) and number < fraction * 2**64
