"""The antisymmetric part: a determinant of singlet pairs in proton-centred orbitals.

The pair function of an up electron i and a down electron j is phi_ij = sum_ab u_a(i) P_ab u_b(j). The orbitals u
see all electrons (backflow positions and amplitudes); P = F(H) comes from a learned mean-field
Hamiltonian and a Fermi function at half filling: sharp, it is a Slater determinant of the lowest states; soft, an
antisymmetrised geminal power (a resonating-valence-bond state), which also fills open shells evenly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fnqs.ansatz.fermi_function import fermi_matrix, paired_levels
from fnqs.ansatz.orbital_basis import OrbitalBasis
from fnqs.factorisations import eigenvectors, phase_and_log_determinant
from fnqs.laplacian.jet import (
    Field,
    Jet,
    add,
    concatenate,
    elementwise,
    linear,
    log_determinant,
    product,
    shift,
)
from fnqs.laplacian.particle_jet import ParticleJet, bilinear_pairs, halves
from fnqs.model_config import ModelConfig
from fnqs.periodic.smooth_distance import SmoothLattice, smooth_pair

LEAST_KEPT = 0.01
"""Share of the last pair's levels below which what is left of them is no longer magnified."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pairing:
    """The pairs of one determinant (any leading batch axes), for unnormalised orbitals, float64 or complex128.

    Attributes:
        closed: (B, B) N/2 pairs in closed shells, with those in empty levels.
        below: (B, B) one pair fewer; this and the following are None where psi has closed shells only.
        last: (B, B) the last pair, up spin along the rows, times a small number.
        weights: (2,) of the closed shells, and of the last pair divided by that number.
    """

    closed: jax.Array
    below: jax.Array | None = None
    last: jax.Array | None = None
    weights: jax.Array | None = None

    @property
    def is_complex(self) -> bool:
        """Whether psi is complex."""
        return jnp.iscomplexobj(self.closed)


def pairing_matrix(
    basis: OrbitalBasis,
    onsite: jax.Array,
    inverse_temperature: jax.Array,
    virtual: jax.Array,
    last_pair: jax.Array,
    pairs: int,
) -> Pairing:
    """Pair the levels of H = H_0 + v, where v is learned, diagonal in symmetrically orthogonalised orbitals.

    In these no level moves by more than the largest v. (v S + S v)/2 between the orbitals as they are, which overlap,
    moves them by up to |v| times the square root of the condition number of S, in dense cells by 30 to 80 times |v|:
    log psi then had derivatives that ended the optimisation.

    Real H: P = F_n(H) - l (F_2n(H) - F_n(H)), n = N/2: pairs of time-reversed states in the closed shells, pairs of
    the other sign in the lowest empty levels (as in a stretched bond: sigma_g^2 - l sigma_u^2). Beside them the same
    with n - 1 pairs, F_(n-1)^2 in place of F_(n-1), so that where these fill a shell in part they do not leave the
    levels below for it; and the last pair V T V^T. Its levels V are those of H_0, projected on the levels of H that the
    pair takes: closed shells and last pair are made of the same orbitals whatever is learned, as the Jastrow factor,
    which meets both, needs.
    Complex H (a general twist): both spins fill the same N/2 lowest states, P = C C^T without conjugation, so that
    both carry the same twist; C = F(H) V with the occupied eigenvectors V held fixed keeps derivatives finite where
    levels cross.

    At the half points psi could be real; here it is complex as at any twist. Orbitals exp(ikr) u(r) come without
    exp(-ikr) u(r), so no gauge makes H real: of a free electron in a cube of 8 protons k and -k = k - G, equal by time
    reversal, come out 26 mHa apart.

    Args:
        basis: constants of the configuration, B orbitals.
        onsite: (B,) v, Ha.
        inverse_temperature: () 1/Ha.
        virtual: () l.
        last_pair: (2,) size of the last pair, and the weight of what it does beside closed shells.
        pairs: N/2.

    Returns:
        the pairs; all symmetric but for the last one of a triplet.
    """
    if not jnp.iscomplexobj(basis.hamiltonian):
        inverse, hamiltonian = jnp.asarray(basis.inverse), jnp.asarray(basis.hamiltonian)
        filled = jnp.asarray([pairs, 2.0 * pairs], onsite.dtype)
        fillings = jnp.concatenate([jnp.asarray(basis.shell.fillings).astype(onsite.dtype), filled])
        one, none = jnp.ones_like(virtual), jnp.zeros_like(virtual)
        weights = jnp.stack(
            [jnp.stack([none, none, none, one + virtual, -virtual]), jnp.stack([none, virtual, -virtual, none, none])]
        )
        squared = jnp.asarray([0.0, 1.0], onsite.dtype)
        state = jnp.asarray(basis.shell.state)
        shell = jnp.asarray(basis.root).T @ jnp.asarray(basis.shell.levels)
        both, followed = paired_levels(
            inverse, hamiltonian, shell, onsite, inverse_temperature, fillings, weights, squared
        )
        levels = inverse.T @ (followed / _kept(shell @ state, followed @ state))
        size, ratio = last_pair
        shares = jnp.stack([jnp.asarray(basis.shell.closed), ratio / (2 * size)])
        return Pairing(both[0], both[1], size * (levels @ state @ levels.T), shares)
    change = jnp.diag(onsite).astype(basis.hamiltonian.dtype)
    occupied = filled_levels(jnp.asarray(basis.hamiltonian), change, inverse_temperature, pairs)
    inverse = jnp.asarray(basis.inverse).astype(occupied.dtype)
    carried = inverse.T @ occupied
    return Pairing(carried @ carried.T)


def filled_levels(first: jax.Array, change: jax.Array, inverse_temperature: jax.Array, number: int) -> jax.Array:
    """Lowest levels (B, number) of a Hamiltonian first + change, between orthogonal orbitals.

    Levels are F V with V held fixed, which keeps derivatives finite where levels cross. Eigenvectors have arbitrary
    phases; their determinant has that of the levels of `first`, so that a sum of several has no trace of them.

    Args:
        first: (B, B) what does not depend on parameters, Ha.
        change: (B, B) what does, Ha.
        inverse_temperature: () of F, 1/Ha.
        number: of levels.
    """
    hamiltonian = first + change
    occupations = fermi_matrix(hamiltonian, inverse_temperature, jnp.asarray(number, inverse_temperature.dtype))
    _, vectors = eigenvectors(hamiltonian)
    occupied = vectors[:, :number]
    _, reference = eigenvectors(jnp.asarray(first))
    turn, _ = phase_and_log_determinant(reference[:, :number].conj().T @ occupied)
    occupied = occupied.at[:, 0].multiply(turn.conj())
    weights = jnp.real(jnp.einsum("an,ab,bn->n", occupied.conj(), occupations, occupied))
    return occupations @ (occupied / jax.lax.stop_gradient(weights).astype(occupied.dtype))


def slater_pairs(basis: OrbitalBasis, onsite: jax.Array, inverse_temperature: jax.Array) -> Pairing:
    """Fill the levels of a Slater determinant, a last shell among them; arguments as those of `pairing_matrix`."""
    if jnp.iscomplexobj(basis.hamiltonian):
        raise ValueError("at a twist a Slater determinant is a pairing_matrix")
    inverse, hamiltonian = jnp.asarray(basis.inverse), jnp.asarray(basis.hamiltonian)
    shell = jnp.asarray(basis.root).T @ jnp.asarray(basis.shell.levels)
    fillings = jnp.asarray(basis.shell.fillings).astype(onsite.dtype)
    weights = jnp.zeros((1, len(fillings)), onsite.dtype).at[0, 0].set(1)
    none = jnp.zeros(1, onsite.dtype)
    below, followed = paired_levels(inverse, hamiltonian, shell, onsite, inverse_temperature, fillings, weights, none)
    levels = inverse.T @ (followed / _kept(shell, followed))
    return Pairing(below[0] + levels @ jnp.asarray(basis.shell.state) @ levels.T)


def _kept(shell: jax.Array, followed: jax.Array) -> jax.Array:
    """Share () of a last pair's levels (B, G) left where they have followed H: 1 without any, LEAST_KEPT at least."""
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


def log_pairs(pair_functions: Callable[[jax.Array], Field], pairing: Pairing) -> tuple[jax.Array, Field]:
    """Phase and log of the antisymmetric part of one determinant.

    det A, A = pair_functions(closed), and with a last pair w_0 det A + w_1 [det(C + T) - det(C - T)], C and T those of
    `below` and `last`: what has an odd number of pairs of the last one's kind. An even number there means a pair that
    is missing below or a second pair in the shell, both of the wrong symmetry.
    """
    if pairing.below is None or pairing.last is None or pairing.weights is None:
        return log_determinant(pair_functions(pairing.closed))
    # All kinds of pairs are a batch of one computation, and so are the determinants.
    every = jax.vmap(pair_functions)(jnp.stack([pairing.closed, pairing.below, pairing.last]))
    closed, below, last = (jax.tree.map(lambda part, kind=kind: part[kind], every) for kind in range(3))
    terms = [closed, add(below, last), add(below, linear(jnp.negative, last))]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *terms)
    phases, logs = jax.vmap(log_determinant)(stacked)
    first, second = pairing.weights
    signed = [first * phases[0], second * phases[1], -second * phases[2]]
    return sum_terms(signed, [jax.tree.map(lambda part, k=k: part[k], logs) for k in range(3)], jnp.zeros(3))


def sum_terms(phases: list[jax.Array], logs: list[Field], weights: jax.Array) -> tuple[jax.Array, Field]:
    """Phase and log of sum_d exp(weight_d) phase_d exp(log_d), stable for terms of any size.

    A phase may be a number of any size; a term of phase 0 does not count.
    """
    if len(logs) == 1:
        return phases[0], logs[0]
    values = jnp.stack([jnp.real(log.value if isinstance(log, Jet) else log) for log in logs]) + weights
    largest = jax.lax.stop_gradient(jnp.max(values))
    parts = jnp.stack(phases) * jnp.exp(values - largest).astype(phases[0].dtype)
    total = jnp.sum(parts)
    size = jnp.abs(total)
    phase, value = total / size.astype(total.dtype), jnp.log(size) + largest
    if not isinstance(logs[0], Jet):
        return phase, value
    share = parts / total
    jacobians = jnp.stack([log.jacobian for log in logs])
    jacobian = jnp.einsum("d,dt->t", share, jacobians)
    curvature = jnp.stack([log.laplacian for log in logs]) + jnp.sum(jacobians**2, axis=1)
    laplacian = jnp.sum(share * curvature) - jnp.sum(jacobian**2)
    return phase, Jet(value.astype(laplacian.dtype), jacobian, laplacian)


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
