"""Which records are held out of training: density windows and whole phases."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HeldOut:
    """What training must not see.

    Attributes:
        density: windows of r_s (bohr), both ends included.
        phases: names of whole phases.
    """

    density: tuple[tuple[float, float], ...] = ()
    phases: tuple[str, ...] = ()

    def split(self, phase: str, density_parameter: float) -> str:
        """Split of a record; a held-out phase comes before a held-out density."""
        if phase in self.phases:
            return "held-out-phase"
        if any(low <= density_parameter <= high for low, high in self.density):
            return "held-out-density"
        return "train"
