"""Sets of twists for twist averaging: grids, random sets and lists, and the mean over them.

Both spins carry the same twist. Time reversal, psi -> psi*, turns a state of twist theta into one of -theta with the
same energy, for the exact state and for this wave function alike, so one of each pair is enough. What the point group
of a crystal adds is in `symmetry`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fnqs.configuration import fold_twist
from fnqs.errors import InputError

MOST_TWISTS = 10_000
"""Twists in a set, at most."""

_ROUNDING = 10
"""Decimals to which two twists are compared."""


@dataclass(frozen=True)
class TwistSet:
    """Twists with their weights.

    Attributes:
        description: as given on the command line, with what was made of it.
        twists: (T, 3) fractions of the reciprocal lattice vectors in (-1/2, 1/2].
        weights: (T,) summing to 1.
        random: whether they are a random sample, so that their scatter belongs to the error of the mean.
        sizes: of a Monkhorst-Pack grid; None for other sets.
    """

    description: str
    twists: np.ndarray
    weights: np.ndarray
    random: bool = False
    sizes: tuple[int, int, int] | None = None


def parse_twists(text: str, seed: int = 0) -> TwistSet:
    """Turn "4x4x4", "random:32" or "0.25,0,0;0.5,0,0" into a set of twists.

    Args:
        text: a Monkhorst-Pack grid, a number of random twists, or twists separated by ";".
        seed: of the random ones.

    Raises:
        InputError: anything else, a grid with a zero, a twist outside (-0.5, 1), or too many of them.
    """
    if re.fullmatch(r"\d+x\d+x\d+", text):
        first, second, third = (int(size) for size in text.split("x"))
        sizes = first, second, third
        if min(sizes) < 1 or math.prod(sizes) > MOST_TWISTS:
            raise InputError(
                f"--twists {text}: each number of a grid is 1 or more, and their product {MOST_TWISTS} at most"
            )
        full = monkhorst_pack(sizes)
        twists, weights = reduce_by_time_reversal(full, np.full(len(full), 1 / len(full)))
        description = f"{text} Monkhorst-Pack, {len(full)} twists as {len(twists)} up to sign"
        return TwistSet(description, twists, weights, sizes=sizes)
    if found := re.fullmatch(r"random:(\d+)", text):
        count = int(found[1])
        if not 1 <= count <= MOST_TWISTS:
            raise InputError(f"--twists {text}: ask for 1 to {MOST_TWISTS} random twists")
        return TwistSet(
            f"{count} random twists, seed {seed}", random_twists(count, seed), np.full(count, 1 / count), True
        )
    listed = _parse_list(text)
    return TwistSet(f"{len(listed)} listed", listed, np.full(len(listed), 1 / len(listed)))


def monkhorst_pack(sizes: Sequence[int]) -> np.ndarray:
    """All twists (2r - q - 1) / 2q, r = 1..q, of a grid (Monkhorst and Pack, Phys. Rev. B 13, 5188 (1976), eq. 3).

    Args:
        sizes: q along the three reciprocal lattice vectors.

    Returns:
        (q1 q2 q3, 3); an odd q contains 0, an even one does not.
    """
    return grid_integers(sizes) / (2 * np.array(sizes))


def grid_integers(sizes: Sequence[int]) -> np.ndarray:
    """Twists (q1 q2 q3, 3) of `monkhorst_pack` as whole numbers 2r - q - 1 of 1/2q."""
    axes = [2 * np.arange(1, size + 1) - size - 1 for size in sizes]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def random_twists(count: int, seed: int) -> np.ndarray:
    """Twists (count, 3), uniform in (-1/2, 1/2]; a longer set begins with the shorter one of the same seed."""
    return 0.5 - np.random.default_rng(seed).random((count, 3))


def reduce_by_time_reversal(twists: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep one of theta and -theta (up to reciprocal lattice vectors), with the weights of both.

    Args:
        twists: (T, 3).
        weights: (T,).

    Returns:
        (T', 3) in (-1/2, 1/2], the first non-zero fraction positive, and (T',).
    """
    kept: dict[tuple[float, ...], np.ndarray] = {}
    total: dict[tuple[float, ...], float] = {}
    for twist, weight in zip(twists, weights, strict=True):
        forms = [fold_twist(np.array(sign * twist, np.float64)) for sign in (1, -1)]
        rounded = [tuple((np.round(fold_twist(np.round(form, _ROUNDING)), _ROUNDING) + 0.0).tolist()) for form in forms]
        name = max(rounded)
        kept.setdefault(name, forms[rounded.index(name)] + 0.0)
        total[name] = total.get(name, 0.0) + float(weight)
    return np.array(list(kept.values())), np.array(list(total.values()))


def twist_average(energies: np.ndarray, errors: np.ndarray, twists: TwistSet) -> tuple[float, float]:
    """Mean over the twists and its standard error, in the unit given.

    A grid is a fixed set: the errors of its twists add in quadrature. Random twists are a sample: the scatter of their
    energies, which includes each one's own error, over the root of their number.

    Args:
        energies: (T,).
        errors: (T,) standard errors, independent.
        twists: the set.
    """
    mean = float(np.sum(twists.weights * energies))
    if twists.random and len(energies) > 1:
        return mean, float(np.std(energies, ddof=1) / np.sqrt(len(energies)))
    return mean, float(np.sqrt(np.sum((twists.weights * errors) ** 2)))


def _parse_list(text: str) -> np.ndarray:
    try:
        rows = [[float(part) for part in point.split(",")] for point in text.split(";")]
    except ValueError:
        rows = [[]]
    if any(len(row) != 3 for row in rows):
        raise InputError(
            f"--twists {text}: give a grid (4x4x4), random twists (random:32) or fractions (0.25,0,0;0.5,0,0)"
        )
    values = np.array(rows)
    if len(values) > MOST_TWISTS or not np.all((values > -0.5) & (values < 1)):
        raise InputError(
            f"--twists {text}: fractions of the reciprocal lattice vectors lie above -0.5 and below 1, "
            f"{MOST_TWISTS} twists at most"
        )
    return np.where(values > 0.5, fold_twist(values), values)  # folding would round those inside
