"""Fermi function of a Hermitian matrix, with derivatives that stay finite at degenerate levels."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from fnqs.factorisations import eigenvectors


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
def paired_levels(
    inverse: jax.Array,
    hamiltonian: jax.Array,
    shell: jax.Array,
    onsite: jax.Array,
    inverse_temperature: jax.Array,
    fillings: jax.Array,
    weights: jax.Array,
    squared: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """inverse^T [sum_m w_km F_m(M) + v_k F_0(M)^2] inverse for every k, and (F_1 - F_0)(M) shell, M = H + diag(onsite).

    F_m is the Fermi function of filling m, H is real; a weight that is negative gives the levels between two fillings
    pairs of the other sign. The same as with `fermi_matrix`, but one diagonalisation serves all fillings and the
    derivative stays among the levels: few products of matrices where the chain rule has many. It is the
    costliest part of a parameter derivative.

    Args:
        inverse: (B, B) of an `OrbitalBasis`, as the next; derivatives in these three are not defined.
        hamiltonian: (B, B), Ha.
        shell: (B, G) any levels, in the basis of the Hamiltonian.
        onsite: (B,) Ha.
        inverse_temperature: () beta, 1/Ha.
        fillings: (M,) the traces of the F_m, M >= 2.
        weights: (K, M) w.
        squared: (K,) v; constants.

    Returns:
        (K, B, B) symmetric, and (B, G): what the shell has of the levels between the first two fillings.
    """
    return _paired_levels(inverse, hamiltonian, shell, onsite, inverse_temperature, fillings, weights, squared)[0]


@partial(paired_levels.defjvp, symbolic_zeros=True)
def _paired_levels_jvp(primals, tangents):
    inverse, _, shell, onsite, beta, _, weights, squared = primals
    if not all(isinstance(tangent, SymbolicZero) for tangent in (*tangents[:3], tangents[5], tangents[7])):
        raise NotImplementedError("the pairing is differentiated in its parameters only; use fermi_matrix")
    d_onsite, d_beta, d_weights = (
        jnp.zeros_like(value) if isinstance(tangent, SymbolicZero) else tangent
        for value, tangent in zip((onsite, beta, weights), (*tangents[3:5], tangents[6]), strict=True)
    )
    value, vectors, occupations, centred = _paired_levels(*primals)
    levels, moved = vectors.T @ inverse, (vectors.T * d_onsite) @ vectors
    changes = jax.vmap(lambda f, x: _change(moved, d_beta, f, x, beta))(occupations, centred)
    direct = jax.vmap(jnp.diag)(d_weights @ occupations)
    of_square = changes[0] * (occupations[0][:, None] + occupations[0])
    change = jnp.einsum("km,mab->kab", weights, changes) + direct + squared[:, None, None] * of_square
    followed = vectors @ ((changes[1] - changes[0]) @ (vectors.T @ shell))
    return value, (levels.T @ change @ levels, followed)


def _paired_levels(inverse, hamiltonian, shell, onsite, beta, fillings, weights, squared):
    """Compute `paired_levels` together with eigenvectors, occupations (M, B) and energies relative to mu (M, B)."""
    energies, vectors = eigenvectors(hamiltonian + jnp.diag(onsite))
    occupations, centred = jax.vmap(lambda filling: _occupy(energies, beta, filling))(fillings)
    levels = vectors.T @ inverse
    followed = (vectors * (occupations[1] - occupations[0])) @ (vectors.T @ shell)
    shares = weights @ occupations + squared[:, None] * occupations[0] ** 2
    pairs = jax.vmap(lambda share: (levels.T * share) @ levels)(shares)
    return (pairs, followed), vectors, occupations, centred


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
    """Eigenvectors, occupations, and energies relative to mu."""
    energies, vectors = eigenvectors(hamiltonian)
    return vectors, *_occupy(energies, beta, filling)


def _occupy(energies: jax.Array, beta: jax.Array, filling: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Occupations of ascending energies, and energies relative to mu (bisection to machine precision)."""

    def halve(bounds, _):
        middle = 0.5 * (bounds[0] + bounds[1])
        total = jnp.sum(jax.nn.sigmoid(-beta * (energies - middle)))
        low = jnp.where(total < filling, middle, bounds[0])
        high = jnp.where(total < filling, bounds[1], middle)
        return (low, high), None

    margin = 40 / beta
    (low, high), _ = jax.lax.scan(halve, (energies[0] - margin, energies[-1] + margin), length=60)
    centred = energies - 0.5 * (low + high)
    return jax.nn.sigmoid(-beta * centred), centred
