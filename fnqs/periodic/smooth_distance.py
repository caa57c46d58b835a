"""Periodic, everywhere smooth distances that know the lattice and not the vectors it is written in.

Every lattice has an obtuse superbase: vectors a_0 + a_1 + a_2 + a_3 = 0 no two of which make an acute angle. With
its Selling parameters p_ij = -a_i a_j >= 0 and the reciprocal vectors g_ij, whose turns are the differences x_i - x_j
of fractional coordinates (x_0 = 0), the squared length of a displacement is sum_ij p_ij (x_i - x_j)^2 over the six
pairs (Selling 1874; Conway & Sloane, Proc. R. Soc. A 436, 55 (1992)). Put on the circle, turn by turn, it becomes

    s^2 = sum_ij p_ij (1 - cos 2 pi (x_i - x_j)) / 2 pi^2,       vector = grad s^2 / 2.

Both equal the true ones for small displacements, are the same for every choice of lattice vectors, change continuously
with the cell, have all symmetries of the lattice, and s^2 vanishes at lattice points only. In a cell with orthogonal
vectors s^2 is sum_a (a/2 pi)^2 2 (1 - cos phi_a).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from ase.geometry import minkowski_reduce

from fnqs.laplacian.jet import Field, Jet, linear
from fnqs.periodic.trigonometry import sin_cos_half_turns

PAIRS = ((0, 1), (0, 2), (1, 2))
"""Pairs of the vectors a_1, a_2, a_3, counted from 0; their turns are differences, those of pairs with a_0 single."""

ACUTE = 1e-12
"""Products a_i a_j above this part of the longest vector's square are acute angles; below, rounding of a right one."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SmoothLattice:
    """What smooth distances in one lattice need (any leading batch axes).

    Attributes:
        cell: (3, 3) a_1, a_2, a_3 as rows, bohr.
        turns: (3, 3) displacement (bohr, a row) to turns x_i along a_1, a_2, a_3: d @ turns, 1/bohr.
        squares: (6,) p_ij / 2 pi^2, bohr^2, of a_1, a_2, a_3 with a_0, then of PAIRS.
        vectors: (6, 3) p_ij g_ij / 2 pi, bohr, in the same order.
    """

    cell: jax.Array | np.ndarray
    turns: jax.Array | np.ndarray
    squares: jax.Array | np.ndarray
    vectors: jax.Array | np.ndarray

    def astype(self, dtype) -> SmoothLattice:
        """Convert to another precision, on the device."""
        return jax.tree.map(lambda part: jnp.asarray(part).astype(dtype), self)


def reduced_cell(cell: np.ndarray) -> np.ndarray:
    """Return the three shortest vectors (3, 3) of a lattice's obtuse superbase as rows, shortest first (host).

    Args:
        cell: (3, 3) lattice vectors as rows, bohr.
    """
    return _superbase(np.ascontiguousarray(cell, np.float64).tobytes())[:3].copy()


@lru_cache(maxsize=256)
def _superbase(cell: bytes) -> np.ndarray:
    """Vectors (4, 3) of the obtuse superbase, shortest first; several preparations ask for the same cell."""
    vectors = np.asarray(minkowski_reduce(np.frombuffer(cell).reshape(3, 3))[0])
    base = np.concatenate([vectors, -vectors.sum(axis=0, keepdims=True)])
    while True:
        products = base @ base.T
        np.fill_diagonal(products, -np.inf)
        first, second = np.unravel_index(products.argmax(), (4, 4))
        if products[first, second] <= ACUTE * np.max(np.sum(base**2, axis=1)):
            break
        # Selling's step: -a_i, a_j, and a_i added to both others; it shortens the sum of squares.
        others = [k for k in range(4) if k not in (first, second)]
        base[others] += base[first]
        base[first] *= -1
    order = np.argsort(np.round(np.linalg.norm(base, axis=1), 9), kind="stable")
    return base[order]


def smooth_lattice(cell: np.ndarray) -> SmoothLattice:
    """Prepare smooth distances in the lattice of a cell (3, 3), vectors as rows in bohr (host, float64)."""
    base = reduced_cell(cell)
    reciprocal = np.linalg.inv(base).T  # rows b_i with a_i b_j = delta_ij
    with_last = base @ base.sum(axis=0)  # -a_i a_0
    among = [-base[i] @ base[j] for i, j in PAIRS]
    selling = np.maximum(np.concatenate([with_last, among]), 0.0)
    waves = np.concatenate([reciprocal, [reciprocal[i] - reciprocal[j] for i, j in PAIRS]])
    return SmoothLattice(
        cell=base,
        turns=reciprocal.T,
        squares=selling / (2 * np.pi**2),
        vectors=selling[:, None] * waves / (2 * np.pi),
    )


def smooth_pair(lattice: SmoothLattice, displacement: Field) -> tuple[Field, Field]:
    """Squared smooth distance (...) in bohr^2 and smooth vector (..., 3) in bohr of displacements (..., 3), bohr."""
    odd, even = _waves(linear(lambda d: d @ lattice.turns, displacement))
    return linear(lambda x: x @ lattice.squares, even), linear(lambda x: x @ lattice.vectors, odd)


def squares_over_the_cell(lattice: SmoothLattice, points: int) -> jax.Array:
    """Squared smooth distances (points^3,), bohr^2, on a uniform grid over the cell that leaves the origin out."""
    axis = (jnp.arange(points, dtype=lattice.squares.dtype) + 0.5) / points
    turns = jnp.stack(jnp.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return _waves(turns)[1] @ lattice.squares


def wrapped(lattice: SmoothLattice, points: jax.Array) -> jax.Array:
    """Move points (..., 3), bohr, by lattice vectors into the cell around the origin.

    Walkers diffuse: far from the origin single precision would no longer resolve them.
    """
    return points - jnp.round(points @ lattice.turns) @ lattice.cell


def _waves(turns: Field) -> tuple[Field, Field]:
    """Sines and 1 - cos phi (..., 6) of phases phi / 2 pi = turns (..., 3) and of the differences of PAIRS.

    Half phases keep 1 - cos phi = 2 sin^2 (phi / 2) precise for short displacements, and the addition theorem
    keeps the number of sines and cosines at three each.
    """
    sine, cosine = sin_cos_half_turns(turns.value if isinstance(turns, Jet) else turns)
    first, second = (np.array(indices) for indices in zip(*PAIRS, strict=True))
    across = sine[..., first] * cosine[..., second] - cosine[..., first] * sine[..., second]
    along = cosine[..., first] * cosine[..., second] + sine[..., first] * sine[..., second]
    sine, cosine = jnp.concatenate([sine, across], -1), jnp.concatenate([cosine, along], -1)
    odd, even = 2 * sine * cosine, 2 * sine**2
    if not isinstance(turns, Jet):
        return odd, even
    full = linear(lambda x: 2 * np.pi * jnp.concatenate([x, x[..., first] - x[..., second]], -1), turns)
    steepness = jnp.sum(full.jacobian**2, axis=0)
    return (
        Jet(odd, (1 - even) * full.jacobian, (1 - even) * full.laplacian - odd * steepness),
        Jet(even, odd * full.jacobian, odd * full.laplacian + (1 - even) * steepness),
    )
