"""Fermi function of a Hermitian matrix, with derivatives that stay finite at degenerate levels."""

from __future__ import annotations

import jax
import jax.numpy as jnp


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
    slope = -occupations * (1 - occupations)  # f'(x) at x = beta (energy - mu)
    rotated = vectors.conj().T @ d_hamiltonian @ vectors
    levels = jnp.real(jnp.diagonal(rotated))
    weight = jnp.sum(slope)
    shift = (jnp.sum(slope * levels) + d_beta / beta * jnp.sum(slope * centred)) / weight
    rotated = rotated - jnp.diag(jnp.broadcast_to(shift, levels.shape)).astype(rotated.dtype)
    gap = centred[:, None] - centred[None]
    close = jnp.abs(gap) * beta < 1e-4
    mean_slope = 0.5 * beta * (slope[:, None] + slope[None])
    ratio = jnp.where(close, mean_slope, (occupations[:, None] - occupations[None]) / jnp.where(close, 1.0, gap))
    change = ratio.astype(rotated.dtype) * rotated + jnp.diag(slope * centred * d_beta).astype(rotated.dtype)
    value = (vectors * occupations.astype(vectors.dtype)) @ vectors.conj().T
    return value, vectors @ change @ vectors.conj().T


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
