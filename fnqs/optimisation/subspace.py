"""Training in fewer directions: some leaves of the parameters, or a few random directions of every kernel.

The change of the parameters is d theta = B x with a fixed B whose columns are orthonormal, so the natural gradient in
x is that of the rows O B, and its step is mapped back. Frozen parameters get an update of exactly zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.optimisation.jacobian import Jacobian

SEED = 20_231
"""Of the random directions: they are the same in every run, so that a run can be resumed anywhere."""

FILTER_HEADS = ("filter_head", "vector_filter_head", "modulation_head")
"""Heads of the protons' network that belong to message passing, not to the pairing or the Jastrow factor."""

PAIRS_AND_JASTROW = ("jastrow", "jastrow_hidden", "log_weights", "occupancies", "pairs")
"""Parts of the amplitude that turn the pairing, make the Jastrow factor and put the terms together."""


TrainedPart = Literal["all", "heads", "low-rank"]
"""All parameters; heads, those of pairing and Jastrow factor; or low-rank changes of every kernel."""


class Trained(NamedTuple):
    """Which directions are trained.

    Attributes:
        part: all parameters; heads, those of pairing and Jastrow factor; or low-rank changes of every kernel.
        rank: directions r of each kernel (d, d') that low-rank changes have: d W = U X with U (d, r) fixed.
    """

    part: TrainedPart = "all"
    rank: int = 4


ALL = Trained()
"""Every parameter."""


@dataclass(frozen=True, eq=False)
class Subspace:
    """Directions B (P, Q) in the space of P parameters, one block for each leaf that moves.

    Attributes:
        leaves: numbers of these leaves, ascending.
        bases: (d, r) with orthonormal columns for each of them, which acts on its first axis; None: all of the leaf.
        shapes: of these leaves.
        starts: place of the first number of each of them among all P.
        parameters: P.
    """

    leaves: tuple[int, ...]
    bases: tuple[np.ndarray | None, ...]
    shapes: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    parameters: int

    @property
    def size(self) -> int:
        """Directions Q."""
        return sum(
            math.prod(shape) if basis is None else basis.shape[1] * math.prod(shape[1:])
            for basis, shape in zip(self.bases, self.shapes, strict=True)
        )

    def reduce(self, values: jax.Array) -> jax.Array:
        """Turn derivatives (..., P') by the numbers of the leaves that move into those along B (..., Q)."""
        parts, first = [], 0
        for basis, shape in zip(self.bases, self.shapes, strict=True):
            part = values[..., first : first + math.prod(shape)]
            first += math.prod(shape)
            if basis is not None:
                matrix = part.reshape(*values.shape[:-1], shape[0], -1)
                turned = jnp.einsum("ir,...io->...ro", jnp.asarray(basis, values.dtype), matrix)
                part = turned.reshape(*values.shape[:-1], -1)
            parts.append(part)
        return jnp.concatenate(parts, axis=-1)

    def restrict(self, vector: jax.Array) -> jax.Array:
        """B^T v (Q,) of a vector (P,)."""
        chosen = [
            vector[start : start + math.prod(shape)] for start, shape in zip(self.starts, self.shapes, strict=True)
        ]
        return self.reduce(jnp.concatenate(chosen))

    def expand(self, coordinates: jax.Array) -> jax.Array:
        """B x (P,) of coordinates (Q,)."""
        result, first = jnp.zeros(self.parameters, coordinates.dtype), 0
        for basis, shape, start in zip(self.bases, self.shapes, self.starts, strict=True):
            count = math.prod(shape) if basis is None else basis.shape[1] * math.prod(shape[1:])
            part = coordinates[first : first + count]
            first += count
            if basis is not None:
                part = (jnp.asarray(basis, part.dtype) @ part.reshape(basis.shape[1], -1)).reshape(-1)
            result = result.at[start : start + math.prod(shape)].set(part)
        return result


class SubspaceJacobian:
    """A Jacobian of which only the derivatives along some directions are known, for an optimiser of all parameters.

    Args:
        inner: rows O B (R, Q).
        subspace: B.
    """

    def __init__(self, inner: Jacobian, subspace: Subspace):
        self._inner, self._subspace = inner, subspace
        self.dtype = inner.dtype

    def gram_and_times(self, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        """O B Bᵀ Oᵀ (R, R) and O B Bᵀ v (R,) of a vector (P,), both in float64."""
        return self._inner.gram_and_times(self._subspace.restrict(vector))

    def transposed_times(self, vector: jax.Array) -> jax.Array:
        """B Bᵀ Oᵀ x (P,) of a vector (R,) in float64."""
        return self._subspace.expand(self._inner.transposed_times(vector))


def subspace_of(params: dict, trained: Trained) -> Subspace | None:
    """Directions of a part of the parameters, of which only names and shapes count; None: all of them.

    Low-rank changes leave what is no kernel (biases, rates, weights) and kernels of few inputs free.
    """
    if trained.part == "all":
        return None
    found = jax.tree_util.tree_flatten_with_path(params)[0]
    shapes = [leaf.shape for _, leaf in found]
    starts = np.cumsum([0] + [math.prod(shape) for shape in shapes]).tolist()
    names = [[str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)] for path, _ in found]
    rng = np.random.default_rng(SEED)
    bases: dict[int, np.ndarray | None] = {}
    for place, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        if trained.part == "heads":
            if _is_head(name):
                bases[place] = None
        elif name[-1] == "kernel" and len(shape) == 2 and shape[0] > trained.rank:
            bases[place] = np.linalg.qr(rng.normal(size=(shape[0], trained.rank)))[0]
        else:
            bases[place] = None
    return Subspace(
        tuple(bases),
        tuple(bases.values()),
        tuple(shapes[place] for place in bases),
        tuple(starts[place] for place in bases),
        starts[-1],
    )


def _is_head(name: list[str]) -> bool:
    """Whether a leaf, named by its path, belongs to the pairing head or the Jastrow factor."""
    if name[0] == "amplitude":
        return name[1] in PAIRS_AND_JASTROW
    return name[1] == "plane_waves" or (name[1].endswith("_head") and name[1] not in FILTER_HEADS)
