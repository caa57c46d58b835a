"""Steps that run away: what is noticed, and what is gone back to.

A training can leave a good state within some ten steps, each of them finite. So the energy and the variance of every
configuration that comes again and again are compared with their own past, and the variance of every step with that of
the steps before with as many electrons, which serves configurations that are seen once. Whatever stays HIGH standard
deviations above its level for LASTING visits in a row is a run-away: the parameters of a good step, KEPT_EVERY steps
back or more, are taken up again, and the next steps are shorter.

All of it is a function of what the steps report, which is the same in every process, and is saved with the run.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fnqs_train.stability.levels import Levels
from fnqs_train.step import Learned, StepReport

HIGH = 5.0
"""Standard deviations above its level from which a value is too high."""

LASTING = 4
"""Visits in a row, all too high, that make a run-away: a step has its outliers, but they do not last."""

KEPT_EVERY = 20
"""Steps between two copies of the parameters; the one before the last is gone back to, or the last if it is alone."""

SHORTER, LONGER = 0.25, 1.03
"""Factor of the length of the steps after a run-away, and that of every step from then on until they are whole."""

TRIES = 3
"""Times that the same copy is gone back to; what is too high after that is the new level."""

KINDS = 64
"""Kinds of steps (N, twisted or not, number of configurations) that have a level of their own."""


class Kept(NamedTuple):
    """A state worth going back to: steps done, parameters and optimiser as numpy arrays."""

    step: int
    params: Any
    optimizer: Any


class Guard:
    """What a training remembers to notice a run-away and to go back.

    Args:
        configurations: of the data set.
        learned: state at the start of the run, the first that is kept; numpy arrays.
        step: steps done then.

    Attributes:
        length: of the next step, 1 for a whole one.
    """

    def __init__(self, configurations: int, learned: Learned, step: int = 0):
        first = Kept(step, learned.params, learned.optimizer)
        self._older, self._newer = first, first
        self.length = 1.0
        self._calm, self._tries = 0, 0
        self._left = (0, 0)  # steps after which walkers followed parameters that were given up
        self._energies, self._variances = Levels(configurations), Levels(configurations)
        self._steps = Levels(KINDS)
        self._kinds: dict[str, int] = {}

    def distrusts(self, last_visits: np.ndarray) -> np.ndarray:
        """Whether walkers last visited in these steps (K,) followed parameters that were given up."""
        first, after = self._left
        return (last_visits >= first) & (last_visits < after)

    def watch(self, kind: tuple[Hashable, ...], indices: np.ndarray, report: StepReport) -> np.ndarray | None:
        """Take in a step.

        Args:
            kind: of the step; what differs in it has variances of its own.
            indices: (K,) of its configurations in the data set.
            report: of the step.

        Returns:
            which of the K configurations ran away, all of them if only their variances together did; None if none.
        """
        good = report.finite & (report.variance > 0)
        if not good.any():
            return None
        energy, variance = (np.asarray(values[good], np.float64) for values in (report.energy, report.variance))
        place = self._kinds.setdefault(repr(kind), len(self._kinds) % KINDS)
        signals = (
            (self._energies, indices[good], energy),
            (self._variances, indices[good], np.log(variance)),
            (self._steps, np.array([place]), np.mean(np.log(variance), keepdims=True)),
        )
        strikes = [levels.add(which, values, HIGH) for levels, which, values in signals]
        self._calm = 0 if any(np.any(found) for found in strikes) else self._calm + 1
        of_each, of_all = np.maximum(strikes[0], strikes[1]) >= LASTING, strikes[2][0] >= LASTING
        if not of_all and not of_each.any():
            return None
        if self._tries >= TRIES:
            for levels, which, _ in signals:
                levels.forget(which)
            self._tries = 0
            return None
        ran = np.zeros(len(indices), bool)
        ran[good] = of_each if of_each.any() else True
        return ran

    def keep(self, step: int, learned: Learned) -> None:
        """Copy the state after a step, if it is time and nothing was too high of late; lengthen the next step."""
        self.length = min(1.0, self.length * LONGER)
        if self._calm >= LASTING and step - self._newer.step >= KEPT_EVERY:
            copy = jax.tree.map(np.asarray, (learned.params, learned.optimizer))
            self._older, self._newer = self._newer, Kept(step, *copy)
            self._tries = 0

    def go_back(self, step: int) -> Learned:
        """Return the state to go on with after a run-away that was noticed after a step; the next steps are shorter."""
        self._newer = self._older
        self.length *= SHORTER
        self._calm, self._tries = 0, self._tries + 1
        self._left = (self._older.step, step)
        for levels in (self._energies, self._variances, self._steps):
            levels.calm_down()
        return Learned(self._older.params, self._older.optimizer, np.float32(self.length))

    @property
    def kept_step(self) -> int:
        """Steps done in the state that would be gone back to."""
        return self._older.step

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Everything to save: nested dict of numpy arrays, and JSON values."""
        arrays: dict[str, Any] = {
            "energies": self._energies.state(),
            "variances": self._variances.state(),
            "steps": self._steps.state(),
        }
        arrays |= {name: _packed(kept) for name, kept in (("older", self._older), ("newer", self._newer))}
        values = {
            "length": self.length,
            "calm": self._calm,
            "tries": self._tries,
            "left": list(self._left),
            "kinds": self._kinds,
            "kept": [self._older.step, self._newer.step],
        }
        return arrays, values

    def restore(self, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Take over a saved state of the same run."""
        self.length, self._calm, self._tries = values["length"], values["calm"], values["tries"]
        self._left, self._kinds = tuple(values["left"]), dict(values["kinds"])
        self._energies.restore(arrays["energies"])
        self._variances.restore(arrays["variances"])
        self._steps.restore(arrays["steps"])
        self._older, self._newer = (
            _unpacked(arrays[name], self._older)._replace(step=step)
            for name, step in zip(("older", "newer"), values["kept"], strict=True)
        )


def _packed(kept: Kept) -> np.ndarray:
    """Bytes of all leaves one after another: one file instead of a hundred."""
    leaves = [np.asarray(leaf, order="C") for leaf in jax.tree.leaves((kept.params, kept.optimizer))]
    return np.concatenate([leaf.reshape(-1).view(np.uint8) for leaf in leaves])


def _unpacked(packed: np.ndarray, like: Kept) -> Kept:
    leaves, structure = jax.tree.flatten((like.params, like.optimizer))
    ends = np.cumsum([np.asarray(leaf).nbytes for leaf in leaves])
    parts = [
        part.view(np.asarray(leaf).dtype).reshape(np.shape(leaf))
        for part, leaf in zip(np.split(packed, ends[:-1]), leaves, strict=True)
    ]
    return Kept(like.step, *jax.tree.unflatten(structure, parts))
