"""The antisymmetric part: a determinant of singlet pairs in proton-centred orbitals.

The pair function of an up electron i and a down electron j is phi_ij = sum_ab u_a(i) P_ab u_b(j). The orbitals u
see all electrons (backflow positions and amplitudes); P = F(H) comes from a learned mean-field
Hamiltonian and a Fermi function at half filling: sharp, it is a Slater determinant of the lowest states; soft, an
antisymmetrised geminal power (a resonating-valence-bond state), which also fills open shells evenly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnqs.fermi import fermi_matrix, paired_levels
from fnqs.forward_laplacian import Field, concatenate, elementwise, linear, product, shift
from fnqs.local_coordinates import ParticleJet, bilinear_pairs, halves
from fnqs.model_config import ModelConfig
from fnqs.orbital_basis import OrbitalBasis
from fnqs.smooth_lattice import SmoothLattice, smooth_pair

LEAST_KEPT = 0.1
"""Share of an open shell below which what is left of it is no longer magnified."""


def pairing_matrix(
    basis: OrbitalBasis,
    onsite: jax.Array,
    inverse_temperature: jax.Array,
    virtual: jax.Array,
    open_shell: jax.Array,
    pairs: int,
) -> jax.Array:
    """Pair the levels of H = H_0 + (v S + S v)/2, where v is diagonal and learned.

    Real H: P = F_closed(H) - l (F_virtual(H) - F_shell(H)) + V T V^T: pairs of time-reversed states in the
    closed shells, pairs of the other sign in the lowest empty levels (as in a stretched bond: sigma_g^2 - l sigma_u^2),
    and the last pair T of an open shell. Its levels V are those of H_0, projected on the shell of H: closed shells
    and last pair are made of the same orbitals whatever is learned, as the Jastrow factor, which meets both, needs.
    With an open shell l is in units of the size of T. Complex H (a general
    twist): both spins fill the same N/2 lowest states, P = C C^T without conjugation, so that both carry the
    same twist; C = F(H) V with the occupied eigenvectors V held fixed keeps derivatives finite where levels
    cross.

    At the half points psi could be real; here it is complex as at any twist. Orbitals exp(ikr) u(r) come without
    exp(-ikr) u(r), so no gauge makes H real: of a free electron in a cube of 8 protons k and -k = k - G, equal by time
    reversal, come out 26 mHa apart.

    Args:
        basis: constants of the configuration, B orbitals.
        onsite: (B,) v, Ha.
        inverse_temperature: () 1/Ha.
        virtual: () l; in units of the norm of `open_shell` where there is an open shell.
        open_shell: (K,) coefficients of the pair states of an open shell.
        pairs: N/2.

    Returns:
        (B, B) P for unnormalised orbitals, float64 or complex128; symmetric but for triplets in an open shell.
    """
    if not jnp.iscomplexobj(basis.hamiltonian):
        inverse, lower, hamiltonian = (jnp.asarray(part) for part in (basis.inverse, basis.lower, basis.hamiltonian))
        fillings = jnp.asarray(basis.shell.fillings).astype(onsite.dtype)
        states = jnp.asarray(basis.shell.states)
        # Without the last pair nothing is left but the closed shells with a pair in empty levels.
        size = jnp.linalg.norm(open_shell)
        virtual = virtual * jnp.where(jnp.any(states != 0), size, 1.0)
        weights = jnp.stack([jnp.ones_like(virtual), virtual, -virtual])
        shell = lower.T @ jnp.asarray(basis.shell.levels)
        closed, followed = paired_levels(
            inverse, lower, hamiltonian, shell, onsite, inverse_temperature, fillings, weights
        )
        levels = inverse.T @ (followed / _kept(shell, followed))
        last_pair = jnp.einsum("k,kgh->gh", open_shell, states)
        return closed + levels @ last_pair @ levels.T
    filling = jnp.asarray(pairs, onsite.dtype)
    moved = (basis.inverse * onsite[None]) @ basis.lower
    hamiltonian = basis.hamiltonian + (0.5 * (moved + moved.T)).astype(basis.hamiltonian.dtype)
    occupations = fermi_matrix(hamiltonian, inverse_temperature, filling)
    _, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(hamiltonian))
    occupied = vectors[:, :pairs]
    # Eigenvectors have arbitrary phases; refer all terms to one set, so that their sum has no trace of them.
    _, reference = jnp.linalg.eigh(basis.hamiltonian)
    turn, _ = jnp.linalg.slogdet(reference[:, :pairs].conj().T @ occupied)
    occupied = occupied.at[:, 0].multiply(turn.conj())
    weights = jnp.real(jnp.einsum("an,ab,bn->n", occupied.conj(), occupations, occupied))
    occupied = occupations @ (occupied / jax.lax.stop_gradient(weights).astype(occupied.dtype))
    inverse = jnp.asarray(basis.inverse).astype(occupied.dtype)
    carried = inverse.T @ occupied
    return carried @ carried.T


def _kept(shell: jax.Array, followed: jax.Array) -> jax.Array:
    """Share () of an open shell (B, G) left where it has followed H: 1 without a shell, LEAST_KEPT at least."""
    size = jnp.sum(shell**2)
    share = jnp.sum(shell * followed) / jnp.where(size == 0, 1.0, size)
    return jnp.where(size == 0, 1.0, jnp.maximum(share, LEAST_KEPT))


def orbitals(lattice: SmoothLattice, protons: jax.Array, positions: Field, config: ModelConfig) -> Field:
    """Proton-centred periodic orbitals (N, B) at electron positions (N, 3), ordered proton by proton."""
    number, centres = positions.shape[0], protons.shape[0]
    spread = linear(lambda z: jnp.broadcast_to(z[:, None], (number, centres, 3)), positions)
    square, vector = smooth_pair(lattice, shift(spread, -protons[None]))
    s_like = _gaussians(square, config.s_exponents)
    p_like = product("ipe,ipx->ipex", _gaussians(square, config.p_exponents), vector)
    parts = [s_like, linear(lambda x: x.reshape(number, centres, -1), p_like)]
    return linear(lambda x: x.reshape(number, -1), concatenate(parts))


def pair_functions(values: Field, pairing: jax.Array) -> Field:
    """phi_ij (N/2, N/2) of up electrons i and down electrons j from orbital values (N, B) and P (B, B).

    Array or ParticleJet in, array or Jet in all coordinates out.
    """
    up, down = halves(values)
    if isinstance(up, ParticleJet):
        return bilinear_pairs(up, down, pairing)
    return (up.astype(pairing.dtype) @ pairing) @ down.astype(pairing.dtype).T


def _gaussians(square: Field, exponents: tuple[float, ...]) -> Field:
    """exp(-a s^2) for every exponent: (N, M) to (N, M, E)."""
    rates = jnp.asarray(exponents, square.value.dtype if hasattr(square, "value") else square.dtype)
    return elementwise(lambda x: jnp.exp(-x), linear(lambda s: s[..., None] * rates, square))
