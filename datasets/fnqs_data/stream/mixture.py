"""Mixture weights: how often phases and densities are visited, relative to each other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fnqs.errors import InputError
from fnqs_data.store.store import Dataset

RESOLUTION = 2**16
"""Weights are rounded to this fraction of the largest, so that drawing by them is exact integer arithmetic."""


def mixture_weights(
    dataset: Dataset,
    indices: np.ndarray,
    *,
    phases: Iterable[tuple[str, float]] = (),
    densities: Iterable[tuple[float, float, float]] = (),
) -> np.ndarray | None:
    """Weight of every selected record: that of its phase times those of the density windows it lies in.

    Args:
        dataset: where the records are.
        indices: (M,) positions of the selected ones.
        phases: (name, weight); phases that are not named weigh 1.
        densities: (lowest r_s, highest r_s, weight), bohr, both ends included; elsewhere the weight is 1.

    Returns:
        (M,) weights, or None if nothing is asked for.

    Raises:
        InputError: a phase that is not among the selected records, an empty window, a weight that is not a
            number of at least 0, or no weight above 0.
    """
    phases, densities = list(phases), list(densities)
    if not phases and not densities:
        return None
    for what, weight in [*phases, *((f"r_s {low} to {high}", weight) for low, high, weight in densities)]:
        if not 0 <= weight < np.inf:
            raise InputError(f"the weight of {what} is {weight}; give a number of 0 or more")
    weights = np.ones(len(indices))
    for phase, weight in phases:
        chosen = np.isin(indices, dataset.where(phase=phase))
        if not chosen.any():
            known = ", ".join(sorted(dataset.manifest.counts))
            raise InputError(f"{dataset.folder}: no selected configuration is of phase {phase!r}; it holds {known}")
        weights[chosen] *= weight
    density = dataset.wigner_seitz_radii[indices]
    for low, high, weight in densities:
        chosen = (density >= low) & (density <= high)
        if not chosen.any():
            raise InputError(f"{dataset.folder}: no selected configuration has r_s between {low} and {high} bohr")
        weights[chosen] *= weight
    if not weights.any():
        raise InputError(f"{dataset.folder}: every selected configuration has weight 0; raise a weight")
    return weights


def integer_weights(weights: np.ndarray) -> np.ndarray:
    """Weights as whole numbers, the largest `RESOLUTION`; none above 0 becomes 0.

    Raises:
        InputError: a negative or infinite weight, NaN, or none above 0.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if not np.all(np.isfinite(weights)) or weights.min() < 0 or not weights.any():
        raise InputError("mixture weights must be numbers of 0 or more, and one of them above 0")
    rounded = np.round(weights * (RESOLUTION / weights.max())).astype(np.int64)
    return np.where(weights > 0, np.maximum(rounded, 1), 0)


def systematic_sample(weights: np.ndarray, count: int, random: float) -> np.ndarray:
    """Choose different places, each with probability count * weight / sum, in ascending order.

    Systematic sampling: equally spaced marks on the line of cumulated weights, shifted together (W. G. Cochran,
    Sampling Techniques, 3rd ed., ch. 8). No place is chosen twice if no weight exceeds sum / count.

    Args:
        weights: (M,) whole numbers.
        count: how many to choose, at most sum // max(weights).
        random: the shift, 0 <= random < 1.
    """
    ends = np.cumsum(weights)
    shift = int(random * int(ends[-1]))
    marks = (np.arange(count, dtype=np.int64) * int(ends[-1]) + shift) // count
    return np.searchsorted(ends, marks, side="right")
