"""Forward Laplacian arithmetic: a value together with its Jacobian and Laplacian in the electron coordinates.

The same network code runs on plain arrays (to sample) and on a `Jet` (for the local energy); the
functions below do the right thing for either. Idea: Li et al., Nat. Mach. Intell. 6, 209 (2024).
What is ours is the freedom to choose the coordinates: a pair function is a Jet in the three numbers of its
displacement, and only sums over neighbours are Jets in all 3N (see `neighbours`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from fnqs.factorisations import inverse, phase_and_log_determinant


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Jet:
    """An array with its first derivatives and Laplacian in T underlying coordinates.

    Attributes:
        value: (...) the array.
        jacobian: (T, ...) its derivative in each coordinate.
        laplacian: (...) the sum over coordinates of its second derivatives.
    """

    value: jax.Array
    jacobian: jax.Array
    laplacian: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return self.value.shape


Field: TypeAlias = Any
"""Either a plain array or a Jet; one call works on one of the two throughout."""


def independent(points: jax.Array) -> Jet:
    """Make the Jet of the coordinates themselves: points (M, 3) become T = 3 M coordinates."""
    size = points.size
    jacobian = jnp.eye(size, dtype=points.dtype).reshape(size, *points.shape)
    return Jet(points, jacobian, jnp.zeros_like(points))


def displacement_jet(displacements: jax.Array) -> Jet:
    """Make displacements (..., 3) a Jet in their own three components (T = 3)."""
    unit = jnp.eye(3, dtype=displacements.dtype)
    unit = unit.reshape(3, *([1] * (displacements.ndim - 1)), 3)
    return Jet(displacements, jnp.broadcast_to(unit, (3, *displacements.shape)), jnp.zeros_like(displacements))


def linear(function: Callable[[jax.Array], jax.Array], x: Field) -> Field:
    """Apply a linear map (no constant term); on a Jet it acts on all three parts."""
    if isinstance(x, Jet):
        return Jet(function(x.value), jax.vmap(function)(x.jacobian), function(x.laplacian))
    return function(x)


def shift(x: Field, constant: jax.Array) -> Field:
    """Add something that does not depend on the electrons."""
    if isinstance(x, Jet):
        value = x.value + constant
        extra = value.shape[: value.ndim - x.value.ndim]
        if extra or value.shape != x.value.shape:
            raise ValueError(f"the constant {jnp.shape(constant)} would enlarge the field {x.value.shape}")
        return Jet(value, x.jacobian, x.laplacian)
    return x + constant


def add(*fields: Field) -> Field:
    """Sum fields of one kind and shape."""
    return jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *fields)


def scale(x: Field, factor: jax.Array) -> Field:
    """Multiply by something that does not depend on the electrons and does not enlarge the field."""
    return jax.tree.map(lambda part: part * factor, x)


def concatenate(fields: list[Field]) -> Field:
    """Join fields along their last axis."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1), *fields)


def elementwise(function: Callable[[jax.Array], jax.Array], x: Field) -> Field:
    """Apply a scalar function to every element, by the chain rule on a Jet."""
    if not isinstance(x, Jet):
        return function(x)
    one = jnp.ones_like(x.value)

    def value_and_slope(y):
        return jax.jvp(function, (y,), (one,))

    (value, slope), (_, curvature) = jax.jvp(value_and_slope, (x.value,), (one,))
    laplacian = slope * x.laplacian + curvature * jnp.sum(x.jacobian**2, axis=0)
    return Jet(value, slope * x.jacobian, laplacian)


def widen(tree: Field) -> Field:
    """Convert every array of a tree, Jets among them, to float64."""
    return jax.tree.map(lambda part: part.astype(jnp.float64), tree)


def narrow(tree: Field, dtype) -> Field:
    """Convert every array of a tree, real or complex, to the precision of a real dtype."""
    with_imaginary = {jnp.dtype(jnp.float32): jnp.complex64, jnp.dtype(jnp.float64): jnp.complex128}[jnp.dtype(dtype)]
    return jax.tree.map(lambda part: part.astype(with_imaginary if jnp.iscomplexobj(part) else dtype), tree)


def product(subscripts: str, x: Field, y: Field) -> Field:
    """Contract two fields by an einsum over named axes; the letter t is taken for the coordinates."""
    inputs, output = subscripts.split("->")
    first, second = inputs.split(",")

    def contract(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(spec, a, b)

    plain = f"{first},{second}->{output}"
    left, right = f"t{first},{second}->t{output}", f"{first},t{second}->t{output}"
    if isinstance(x, Jet) and isinstance(y, Jet):
        return Jet(
            contract(plain, x.value, y.value),
            contract(left, x.jacobian, y.value) + contract(right, x.value, y.jacobian),
            contract(plain, x.laplacian, y.value)
            + contract(plain, x.value, y.laplacian)
            + 2 * contract(f"t{first},t{second}->{output}", x.jacobian, y.jacobian),
        )
    if isinstance(x, Jet):
        return Jet(
            *(contract(s, p, y) for s, p in zip((plain, left, plain), (x.value, x.jacobian, x.laplacian), strict=True))
        )
    if isinstance(y, Jet):
        return Jet(
            *(contract(s, x, p) for s, p in zip((plain, right, plain), (y.value, y.jacobian, y.laplacian), strict=True))
        )
    return contract(plain, x, y)


def log_determinant(matrix: Field) -> tuple[jax.Array, Field]:
    """Phase and log of the absolute determinant of a square matrix (n, n).

    On a Jet the log carries derivatives of log det (complex for a complex matrix: its real value is
    log|det|, and its derivatives those of log det, phase included).
    """
    if not isinstance(matrix, Jet):
        return phase_and_log_determinant(matrix)
    phase, log = phase_and_log_determinant(matrix.value)
    inverted = inverse(matrix.value)
    slope = jnp.einsum("ij,tjk->tik", inverted, matrix.jacobian)
    gradient = jnp.einsum("tii->t", slope)
    laplacian = jnp.einsum("ij,ji->", inverted, matrix.laplacian) - jnp.einsum("tij,tji->", slope, slope)
    return phase, Jet(log.astype(matrix.value.dtype), gradient, laplacian)
