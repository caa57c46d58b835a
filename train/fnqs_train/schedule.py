"""Which configurations meet next, chosen by variance and age instead of all equally often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fnqs.errors import InputError
from fnqs_data.stream.stream import ConfigurationStream
from fnqs_train.walkers import NEVER, Population

ROUND = 50
"""Steps after which the weights are worked out anew; they are used in the round after the next one begins."""

LARGEST = 4.0
"""No factor of a weight is larger than this, or smaller than its inverse, so that none is forgotten."""


class Schedule:
    """Draws the configurations of each step with weights from what the population knows of them.

    The weight of a configuration is sqrt(variance/N) over its mean times age over its mean, each within
    1 / LARGEST to LARGEST; one never visited has the largest weight. N and the size of a batch are those of the
    stream. Batches are prepared ahead of their step, so the weights of a round are fixed one round before:
    the choice is a function of (seed, step) and of two saved sets of weights.

    Args:
        stream: of all configurations.
        indices: (M,) their data set positions.
        seed: of the draws.
    """

    def __init__(self, stream: ConfigurationStream, indices: np.ndarray, seed: int):
        self._stream, self._indices, self._seed = stream, indices, seed
        self._place = np.full(int(indices.max()) + 1, -1, np.int64)
        self._place[indices] = np.arange(len(indices))
        self._round = -1
        self._weights = [np.ones(len(indices), np.float32) for _ in range(2)]

    def begin(self, step: int, population: Population) -> None:
        """Work out the weights of the round after this one, when a round begins."""
        if step % ROUND == 0 and step // ROUND != self._round:
            variance, last = population.statistics(self._indices)
            self._weights = [self._weights[1], _weights(variance, last, step)]
        self._round = step // ROUND

    def choose(self, step: int) -> np.ndarray:
        """Draw the data set positions (K,) of a step of this round or the next."""
        members = self._stream.members(step)
        size = len(self._stream.batch_indices(step)[1])
        weights = self._weights[step // ROUND - self._round][self._place[members]]
        # The largest of log(weight) + Gumbel noise are a draw without replacement.
        noise = np.random.default_rng((self._seed, step, 1)).gumbel(size=len(members))
        return members[np.argsort(-(np.log(weights) + noise), kind="stable")[:size]]

    def state(self) -> dict[str, Any]:
        """Everything to save."""
        return {"schedule": {"this_round": self._weights[0], "next_round": self._weights[1]}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; the step to go on with begins it.

        Raises:
            InputError: it is of other data or of a run without a schedule.
        """
        saved = state.get("schedule", {})
        weights = [np.asarray(saved.get(name, ())) for name in ("this_round", "next_round")]
        if any(values.shape != self._indices.shape for values in weights):
            raise InputError("the saved run has no schedule, or one of other data; use the run's own config")
        self._weights = weights


def _weights(variance: np.ndarray, last: np.ndarray, step: int) -> np.ndarray:
    visited = (last != NEVER) & np.isfinite(variance)
    weights = np.full(len(variance), LARGEST**2)
    if visited.any():
        spread, age = np.sqrt(variance[visited]), (step - last[visited]).astype(float)
        factors = [values / max(values.mean(), np.finfo(float).tiny) for values in (spread, age)]
        weights[visited] = np.prod(np.clip(factors, 1 / LARGEST, LARGEST), axis=0)
    return weights.astype(np.float32)
