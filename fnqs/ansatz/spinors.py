"""Local moments in the wave function: one determinant of all N electrons, whose levels are spinors, of total spin 0.

In thin cells electrons sit on protons of their own, neighbours with opposite spins. So N/2 levels of H + m s have
their spin along a direction n, N/2 levels of H - m s against it, where s = +-1 alternates from proton to proton
(`local_moments`). With n at an angle t to the axis along which spins are counted, c = cos t/2 and d = sin t/2, the
part of their determinant with as many electrons of either spin is

    psi_t = | c A+(up)    -d A-(up)   |
            | d A+(down)   c A-(down) |,        A+-: the N/2 lowest levels of H +- m s,

and psi is its mean over the sphere of directions n, which has total spin 0. Without a field it is a Slater determinant
of H. The sign of s does not matter: it exchanges t and pi - t. Where a configuration has two patterns s, psi is the sum
of both, with the sign that makes their parts of spin 0 overlap. Levels equal at the Fermi energy of H +- m s are left
to rounding. The factors of occupied protons depend on spin, so what they make of psi is a singlet only nearly.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.ansatz.geminal import filled_levels, sum_terms
from fnqs.ansatz.orbital_basis import OrbitalBasis
from fnqs.ansatz.site_occupancy import occupied_levels
from fnqs.factorisations import phase_and_log_determinant
from fnqs.laplacian.jet import Field, concatenate, linear, log_determinant, scale
from fnqs.laplacian.particle_jet import halves

DIRECTIONS = 4
"""Gauss-Legendre points in cos t: total spins up to twice as many less one are removed exactly, which are all there can
be up to N = 14. Of moments that alternate perfectly the rest has a weight of 6e-5 at N = 16, 2 % at 32, 10 % at 54."""

NO_OVERLAP = 1e-7
"""Overlap, relative to the norms, below which a second pattern counts less and less: there its sign changes."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Spinors:
    """Levels of one determinant (any leading batch axes), for unnormalised orbitals, float64 or complex128.

    Attributes:
        along: (PATTERNS, B, N/2) of H + m s, spin along n.
        against: (PATTERNS, B, N/2) of H - m s, spin against n.
        weights: (PATTERNS,) of the patterns, with the phase at which a pattern overlaps with the first.
    """

    along: jax.Array
    against: jax.Array
    weights: jax.Array

    @property
    def is_complex(self) -> bool:
        """Whether psi is complex."""
        return jnp.iscomplexobj(self.along)


def spinor_levels(
    basis: OrbitalBasis, onsite: jax.Array, field: jax.Array, inverse_temperature: jax.Array, pairs: int
) -> Spinors:
    """Fill the levels of H_0 + v +- m s.

    Args:
        basis: constants of the configuration, B orbitals, with the patterns s.
        onsite: (B,) v, Ha.
        field: (B,) m, Ha.
        inverse_temperature: () 1/Ha.
        pairs: N/2.
    """
    hamiltonian, patterns = jnp.asarray(basis.hamiltonian), jnp.asarray(basis.moments)

    def filled(moments: jax.Array) -> jax.Array:
        change = jnp.diag(onsite + field * moments).astype(hamiltonian.dtype)
        return filled_levels(hamiltonian, change, inverse_temperature, pairs)

    both = [[filled(sign * moments) for sign in (1.0, -1.0)] for moments in patterns]
    states = jax.lax.stop_gradient([jnp.concatenate(levels, axis=-1) for levels in both])
    phases = [jnp.conj(_overlap_phase(states[0], state)) for state in states]
    inverse = jnp.asarray(basis.inverse).T
    along, against = (
        jnp.stack([inverse.astype(part.dtype) @ part for part in side]) for side in zip(*both, strict=True)
    )
    return Spinors(along, against, jnp.asarray(basis.moment_weights, phases[0].dtype) * jnp.stack(phases))


def _overlap_phase(one: jax.Array, other: jax.Array) -> jax.Array:
    """Phase () of the overlap of two states of total spin 0, 0 where there is none.

    Args:
        one: levels (B, N) along and against n, between orthogonal orbitals.
        other: those of the other state.
    """

    def overlap(left: jax.Array, right: jax.Array) -> jax.Array:
        turns, weights = _turns(left.shape[-1] // 2)
        phases, logs = jax.vmap(phase_and_log_determinant)(jnp.asarray(turns, left.dtype) * (left.conj().T @ right))
        return jnp.sum(jnp.asarray(weights, left.dtype) * phases * jnp.exp(logs).astype(left.dtype))

    found, norms = overlap(one, other), jnp.abs(overlap(one, one) * overlap(other, other))
    return found / jnp.sqrt(jnp.abs(found) ** 2 + NO_OVERLAP**2 * norms).astype(found.dtype)


def _turns(pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors (DIRECTIONS, N, N) of the blocks of psi_t, and weights (DIRECTIONS,) of the directions."""
    cosines, weights = np.polynomial.legendre.leggauss(DIRECTIONS)
    half, block = 0.5 * np.arccos(cosines), np.ones((pairs, pairs))
    turns = [np.kron([[c, -d], [d, c]], block) for c, d in zip(np.cos(half), np.sin(half), strict=True)]
    return np.stack(turns), weights


def log_spinors(values: Field, factors: Field, spinors: Spinors, members: jax.Array) -> tuple[jax.Array, Field]:
    """Phase and log of one determinant of all electrons, projected on total spin 0 (see DIRECTIONS).

    Args:
        values: (N, B) orbitals u of all electrons, array or ParticleJet.
        factors: (2, M, S) of the protons for both spins, array or Jet in all T coordinates.
        spinors: levels of the determinant.
        members: (B/M,) shell of each orbital of a proton.
    """
    turns, weights = _turns(spinors.along.shape[-1])
    phases, logs = [], []
    for along, against, share in zip(spinors.along, spinors.against, spinors.weights, strict=True):
        levels = jnp.concatenate([along, against], axis=-1)
        rows = []
        for spin, electrons in enumerate(halves(values)):
            own = linear(lambda x, spin=spin: x[spin], factors)
            rows.append(linear(_transposed, occupied_levels(electrons, own, levels, members)))
        matrix = linear(_transposed, concatenate(rows))
        turned = jax.vmap(lambda turn, matrix=matrix: log_determinant(scale(matrix, turn)))
        signs, parts = turned(jnp.asarray(turns, levels.dtype))
        phases += [
            weight * share.astype(signs.dtype) * sign for weight, sign in zip(weights.tolist(), signs, strict=True)
        ]
        logs += [jax.tree.map(lambda part, k=k: part[k], parts) for k in range(DIRECTIONS)]
    return sum_terms(phases, logs, jnp.zeros(len(logs)))


def _transposed(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)
