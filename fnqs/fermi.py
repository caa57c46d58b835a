"""Fermi function of a Hermitian matrix, with derivatives that stay finite at degenerate levels."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


@jax.custom_jvp
def fermi_matrix(hamiltonian: jax.Array, inverse_temperature: jax.Array, filling: jax.Array) -> jax.Array:
    """F(H) = 1 / (1 + exp(beta (H - mu))) with mu such that the trace is the filling.

    The derivative uses divided differences of the Fermi function instead of derivatives of
    eigenvectors (Daleckii-Krein), so degenerate levels are harmless; mu follows H and beta.

    Args:
        hamiltonian: (B, B) Hermitian, Ha.
        inverse_temperature: () beta, 1/Ha.
        filling: () the trace of the result.

    Returns:
        (B, B) Hermitian, eigenvalues between 0 and 1.
    """
    vectors, occupations, _ = _solve(hamiltonian, inverse_temperature, filling)
    return (vectors * occupations.astype(vectors.dtype)) @ vectors.conj().T


@fermi_matrix.defjvp
def _fermi_matrix_jvp(primals, tangents):
    hamiltonian, beta, filling = primals
    d_hamiltonian, d_beta, _ = tangents
    vectors, occupations, centred = _solve(hamiltonian, beta, filling)
    change = _change(vectors.conj().T @ d_hamiltonian @ vectors, d_beta, occupations, centred, beta)
    value = (vectors * occupations.astype(vectors.dtype)) @ vectors.conj().T
    return value, vectors @ change @ vectors.conj().T


@jax.custom_jvp
def filled_pairs(
    inverse: jax.Array,
    lower: jax.Array,
    hamiltonian: jax.Array,
    onsite: jax.Array,
    inverse_temperature: jax.Array,
    filling: jax.Array,
) -> jax.Array:
    """inverse^T F(H + (X + X^T)/2) inverse for real H and X = inverse diag(onsite) lower.

    The same as with `fermi_matrix`, but its derivative stays among the levels: three products of matrices
    where the chain rule has seven. It is the costliest part of a parameter derivative.

    Args:
        inverse: (B, B) of an `OrbitalBasis`, as the next two; derivatives in these three are not defined.
        lower: (B, B).
        hamiltonian: (B, B), Ha.
        onsite: (B,) Ha.
        inverse_temperature: () beta, 1/Ha.
        filling: () the trace of F.

    Returns:
        (B, B) symmetric.
    """
    return _filled_pairs(inverse, lower, hamiltonian, onsite, inverse_temperature, filling)[0]


@partial(filled_pairs.defjvp, symbolic_zeros=True)
def _filled_pairs_jvp(primals, tangents):
    inverse, lower, hamiltonian, onsite, beta, filling = primals
    if not all(isinstance(tangent, SymbolicZero) for tangent in (*tangents[:3], tangents[5])):
        raise NotImplementedError("the pairing is differentiated in its parameters only; use fermi_matrix")
    d_onsite, d_beta = (
        jnp.zeros_like(value) if isinstance(tangent, SymbolicZero) else tangent
        for value, tangent in zip((onsite, beta), tangents[3:5], strict=True)
    )
    value, vectors, occupations, centred = _filled_pairs(inverse, lower, hamiltonian, onsite, beta, filling)
    levels, turned = vectors.T @ inverse, lower @ vectors
    moved = (levels * d_onsite) @ turned
    change = _change(0.5 * (moved + moved.T), d_beta, occupations, centred, beta)
    return value, levels.T @ change @ levels


def _filled_pairs(inverse, lower, hamiltonian, onsite, beta, filling):
    """Compute `filled_pairs` together with eigenvectors, occupations and energies relative to mu."""
    moved = (inverse * onsite) @ lower
    vectors, occupations, centred = _solve(hamiltonian + 0.5 * (moved + moved.T), beta, filling)
    levels = vectors.T @ inverse
    return (levels.T * occupations) @ levels, vectors, occupations, centred


def _change(rotated: jax.Array, d_beta: jax.Array, occupations: jax.Array, centred: jax.Array, beta: jax.Array):
    """Change of F among the levels, for a change `rotated` (B, B) of H among the levels and one of beta."""
    slope = -occupations * (1 - occupations)  # f'(x) at x = beta (energy - mu)
    levels = jnp.real(jnp.diagonal(rotated))
    weight = jnp.sum(slope)
    # Where all levels are full or empty to the last bit, mu may be anywhere between and nothing depends on it.
    weight = jnp.where(weight == 0, 1.0, weight)
    shift = (jnp.sum(slope * levels) + d_beta / beta * jnp.sum(slope * centred)) / weight
    rotated = rotated - jnp.diag(jnp.broadcast_to(shift, levels.shape)).astype(rotated.dtype)
    gap = centred[:, None] - centred[None]
    close = jnp.abs(gap) * beta < 1e-4
    mean_slope = 0.5 * beta * (slope[:, None] + slope[None])
    ratio = jnp.where(close, mean_slope, (occupations[:, None] - occupations[None]) / jnp.where(close, 1.0, gap))
    return ratio.astype(rotated.dtype) * rotated + jnp.diag(slope * centred * d_beta).astype(rotated.dtype)


def _solve(hamiltonian: jax.Array, beta: jax.Array, filling: jax.Array):
    """Eigenvectors, occupations, and energies relative to mu (bisection to machine precision)."""
    energies, vectors = jnp.linalg.eigh(hamiltonian)

    def halve(bounds, _):
        middle = 0.5 * (bounds[0] + bounds[1])
        total = jnp.sum(jax.nn.sigmoid(-beta * (energies - middle)))
        low = jnp.where(total < filling, middle, bounds[0])
        high = jnp.where(total < filling, bounds[1], middle)
        return (low, high), None

    margin = 40 / beta
    (low, high), _ = jax.lax.scan(halve, (energies[0] - margin, energies[-1] + margin), length=60)
    centred = energies - 0.5 * (low + high)
    return vectors, jax.nn.sigmoid(-beta * centred), centred
