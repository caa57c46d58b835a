"""Functions of pairs and their sums over neighbours, for plain arrays and for Jets.

A pair quantity has the shape (N, M, ...) for receivers i and senders j and, as a Jet, derivatives in the
three components of the displacement r_i - r_j only (T = 3). Summing over senders gives a quantity of the
receivers, as a Jet in all 3N electron coordinates. This is where the structure of the network makes the
Laplacian cheap: a pair costs five numbers whatever N is.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnqs.laplacian.jet import (
    Field,
    Jet,
    displacement_jet,
    elementwise,
    linear,
    scale,
    shift,
)
from fnqs.periodic.smooth_distance import SmoothLattice, squares_over_the_cell

SMALLEST_VARIANCE = 1.0
"""Added to the variance that normalises a radial function, so that rare close pairs are not magnified."""


def pair_displacements(receivers: jax.Array, senders: jax.Array, derivatives: bool) -> Field:
    """r_i - r_j (N, M, 3) in bohr, as a Jet in its own components when derivatives are asked for."""
    displacement = receivers[:, None] - senders[None]
    return displacement_jet(displacement) if derivatives else displacement


def distances(square: Field, same: bool) -> Field:
    """Square root of smooth squared distances (N, M); with `same` the diagonal is set to 1 bohr."""
    if same:
        diagonal = jnp.eye(square.shape[0], dtype=bool)
        away = jnp.where(diagonal, 0, 1).astype(_dtype(square))
        square = shift(scale(square, away), 1 - away)
    return elementwise(jnp.sqrt, square)


def radial_functions(distance: Field, rates: jax.Array, mean: jax.Array, size: jax.Array) -> Field:
    """((1 + k s) exp(-k s) - mean) / size for every rate k: (N, M, K), flat at s = 0, so that no cusp is added.

    Args:
        distance: (N, M) smooth distances, bohr.
        rates: (K,) decay rates, 1/bohr.
        mean: (K,) subtracted, from `radial_moments`.
        size: (K,) divided by, from `radial_moments`.
    """
    reduced = linear(lambda s: s[..., None] * rates, distance)
    values = elementwise(lambda x: (1 + x) * jnp.exp(-x), reduced)
    return scale(shift(values, -mean), 1 / size)


def radial_moments(lattice: SmoothLattice, rates: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """Mean over the cell of each radial function and the usual size of its sum over neighbours.

    Subtracting the mean leaves sums over neighbours that see only fluctuations of the density, so that they do
    not grow with the cell; the size is the standard deviation of the sum over N independent neighbours.

    Args:
        lattice: of the configuration.
        rates: (K,) decay rates, 1/bohr.
        number: N.

    Returns:
        mean (K,) and size (K,), for `radial_functions`.
    """
    nothing, one = jnp.zeros_like(rates), jnp.ones_like(rates)
    values = radial_functions(jnp.sqrt(squares_over_the_cell(lattice, 12)), rates, nothing, one)
    mean, variance = jnp.mean(values, axis=0), jnp.var(values, axis=0)
    return mean, jnp.sqrt(number * variance + SMALLEST_VARIANCE)


def off_diagonal(pair: Field) -> Field:
    """Set the entries of a particle with itself, (i, i, ...), to zero."""
    number = pair.shape[0]
    mask = (1 - jnp.eye(number)).astype(_dtype(pair))
    return scale(pair, mask.reshape(number, number, *([1] * (len(pair.shape) - 2))))


def sum_over_protons(pair: Field) -> Field:
    """Sum an electron-proton quantity (N, M, ...) over protons: (N, ...), T = 3N."""
    if not isinstance(pair, Jet):
        return jnp.sum(pair, axis=1)
    return Jet(
        jnp.sum(pair.value, axis=1),
        _own_coordinates(jnp.sum(pair.jacobian, axis=2)),
        jnp.sum(pair.laplacian, axis=1),
    )


def filter_protons(radial: Field, filters: jax.Array) -> Field:
    """Sum radial functions (N, M, K) times the filters (M, K, F) of every proton: (N, F), T = 3N."""

    def contract(x: jax.Array) -> jax.Array:
        return jnp.einsum("...imk,mkf->...if", x, filters)

    if not isinstance(radial, Jet):
        return contract(radial)
    return Jet(contract(radial.value), _own_coordinates(contract(radial.jacobian)), contract(radial.laplacian))


def sum_over_electrons(pair: Field) -> Field:
    """Sum an electron-electron quantity (N, N, ...) with an empty diagonal over senders: (N, ...), T = 3N."""
    if not isinstance(pair, Jet):
        return jnp.sum(pair, axis=1)
    own = _own_coordinates(jnp.sum(pair.jacobian, axis=2))
    return Jet(
        jnp.sum(pair.value, axis=1),
        own - _sender_coordinates(pair.jacobian),
        2 * jnp.sum(pair.laplacian, axis=1),
    )


def sum_of_each_spin(pair: Field) -> Field:
    """Sum an electron-proton quantity (N, M, ...) over the electrons of each spin: (2, M, ...), T = 3N."""

    def add_up(x: jax.Array) -> jax.Array:
        return jnp.sum(x.reshape(2, -1, *x.shape[1:]), axis=1)

    if not isinstance(pair, Jet):
        return add_up(pair)
    number = pair.shape[0]
    spins = jnp.repeat(jnp.eye(2, dtype=pair.value.dtype), number // 2, axis=0)
    placed = jnp.einsum("xj...,js->jxs...", pair.jacobian, spins)
    return Jet(add_up(pair.value), placed.reshape(3 * number, *placed.shape[2:]), add_up(pair.laplacian))


def sum_messages(filters: Field, features: Field) -> Field:
    """Messages sum_j filters_ij * features_j of electrons.

    Args:
        filters: (N, N, F) pair quantity with an empty diagonal (T = 3).
        features: (N, F) electron quantity (T = 3N).

    Returns:
        (N, F), T = 3N.
    """
    if not (isinstance(filters, Jet) and isinstance(features, Jet)):
        return jnp.einsum("ijf,jf->if", filters, features)
    number, width = features.shape
    slopes = filters.jacobian  # (3, N, N, F)
    by_particle = features.jacobian.reshape(number, 3, number, width)
    weighted = slopes * features.value  # slope of each message in its displacement
    own = _own_coordinates(jnp.sum(weighted, axis=2)) - _sender_coordinates(weighted)
    jacobian = own + jnp.einsum("ijf,tjf->tif", filters.value, features.jacobian)
    diagonal = jnp.einsum("jxjf->xjf", by_particle)
    mixed = jnp.einsum("xijf,ixjf->if", slopes, by_particle) - jnp.einsum("xijf,xjf->if", slopes, diagonal)
    laplacian = (
        2 * jnp.einsum("ijf,jf->if", filters.laplacian, features.value)
        + jnp.einsum("ijf,jf->if", filters.value, features.laplacian)
        + 2 * mixed
    )
    return Jet(jnp.einsum("ijf,jf->if", filters.value, features.value), jacobian, laplacian)


def _own_coordinates(slope: jax.Array) -> jax.Array:
    """Place derivatives (3, N, ...) of each particle's quantity in its own coordinates: (3N, N, ...)."""
    number = slope.shape[1]
    eye = jnp.eye(number, dtype=slope.dtype)
    placed = jnp.einsum("xi...,li->lxi...", slope, eye)
    return placed.reshape(3 * number, *slope.shape[1:])


def _sender_coordinates(slope: jax.Array) -> jax.Array:
    """Turn derivatives (3, N, N, ...) into those of receiver i in the sender's coordinates: (3N, N, ...)."""
    moved = jnp.moveaxis(slope, 2, 0)
    return moved.reshape(-1, *moved.shape[2:])


def _dtype(x: Field):
    return x.value.dtype if isinstance(x, Jet) else x.dtype
