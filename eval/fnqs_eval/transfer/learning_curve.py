"""How many steps a training needs to reach an energy, from separate evaluations of its parameters.

The energies that the training steps themselves measure would be a cheaper curve. But one step gives E/N only to
sqrt(variance / samples), with walkers that lag a step behind; averaged over enough steps to resolve 0.5 mHa per atom,
it no longer resolves the first steps, where fine-tuning happens. So the parameters after 1, 2, 5, 10, 20, 50 ... steps
are evaluated separately, each to the wanted error, with the same seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Point:
    """An evaluated energy, the mean over the configurations.

    Attributes:
        step: optimisation steps before it.
        energy: E/N, Ha.
        error: its standard error, Ha.
    """

    step: int
    energy: float
    error: float


@dataclass(frozen=True)
class Curve:
    """The learning curve of a training.

    Attributes:
        points: in the order of their steps.
        seconds_per_step: median time of a step, s, without compilation (a second training in the same process would
            not have to compile).
    """

    points: tuple[Point, ...]
    seconds_per_step: float


@dataclass(frozen=True)
class Reached:
    """The step at which a curve has reached an energy: from there on all its points lie close enough to it.

    Only evaluated steps can be told apart.

    Attributes:
        step: first evaluated step from which on the curve stays close; None if it does not by the last one.
        seconds: training time up to that step; None without a step.
        latest: upper bound of `step`: the same with every energy raised by one standard error.
        before: lower bound: the last evaluated step at which the energy has not been reached even with every energy
            lowered by one standard error; 0 if there is none.
        last: last evaluated step.
    """

    step: int | None
    seconds: float | None
    latest: int | None
    before: int
    last: int

    def __str__(self) -> str:
        """Write the step as in "20", "20 (to 50)" where its error bar matters, or "not in 200"."""
        if self.step is None:
            return f"not in {self.last}"
        if self.latest == self.step:
            return str(self.step)
        return f"{self.step} (to {self.latest})" if self.latest is not None else f"{self.step} (or later)"


@dataclass(frozen=True)
class Ratio:
    """How many times fewer steps (or seconds) fine-tuning needs than training from scratch.

    Zero steps of fine-tuning count as one.

    Attributes:
        value: the ratio; None if one of the trainings has not reached the energy.
        at_least: lower bound of the ratio, from the upper bound for fine-tuning and the lower bound for training from
            scratch; None if one of them is missing.
    """

    value: float | None
    at_least: float | None

    def __str__(self) -> str:
        """Write it as in "50 (> 20)", or "> 20" where only the bound is known."""
        bound = None if self.at_least is None else f"> {rounded(self.at_least, 2)}"
        if self.value is None:
            return bound or "unknown"
        return rounded(self.value, 2) + (f" ({bound})" if bound else "")


def evaluated_steps(last: int) -> list[int]:
    """Return 1, 2, 5, 10, 20, 50 ... below the last step, and that."""
    grid = [factor * 10**power for power in range(len(str(last))) for factor in (1, 2, 5)]
    return [step for step in grid if step < last] + [last] * (last > 0)


def difference(first: Point, second: Point) -> tuple[float, float]:
    """E/N of the first minus that of the second, with its standard error, Ha."""
    return first.energy - second.energy, math.hypot(first.error, second.error)


def reached(curve: Curve, limit: Point, within: float) -> Reached:
    """Find the step from which on a curve stays less than `within` above a limit.

    Args:
        curve: with one point or more.
        limit: the energy to reach.
        within: allowed distance above it, Ha per atom.
    """
    step, latest = (_first(curve.points, limit, within, errors) for errors in (0, 1))
    there = _first(curve.points, limit, within, -1)
    before = [point.step for point in curve.points if there is None or point.step < there]
    seconds = None if step is None else step * curve.seconds_per_step
    return Reached(step, seconds, latest, max(before, default=0), curve.points[-1].step)


def ratio(tuned: Reached, scratch: Reached, *, seconds: tuple[float, float] = (1.0, 1.0)) -> Ratio:
    """Compare two trainings that reach the same energy.

    Args:
        tuned: fine-tuning.
        scratch: training from scratch.
        seconds: time per step of each, to compare times; by default steps are compared.
    """
    dearer = seconds[1] / seconds[0]
    value = None
    if tuned.step is not None and scratch.step is not None:
        value = dearer * scratch.step / max(1, tuned.step)
    bound = None
    if tuned.latest is not None and scratch.before > 0:
        bound = dearer * scratch.before / max(1, tuned.latest)
    return Ratio(value, bound)


def mean_point(step: int, energies: Sequence[float], errors: Sequence[float]) -> Point:
    """Average over configurations, whose errors are independent."""
    return Point(step, float(np.mean(energies)), float(np.linalg.norm(errors)) / len(errors))


def rounded(value: float, digits: int) -> str:
    """Write a number with `digits` significant digits and without a power of ten: "2500", "0.38"."""
    return f"{float(f'{value:.{digits - 1}e}'):.10g}"


def _first(points: Sequence[Point], limit: Point, within: float, errors: float) -> int | None:
    """First step from which on every energy plus `errors` standard errors is less than `within` above the limit."""
    found = None
    for point in reversed(points):
        above, error = difference(point, limit)
        if not above + errors * error <= within:
            return found
        found = point.step
    return found
