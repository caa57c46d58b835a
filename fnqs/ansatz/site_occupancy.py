"""Factors of a proton's orbitals that depend on which electrons are near it.

Where electrons repel each other an orbital is worth less on a proton that has an electron already, and for electrons
of one spin and of the other in different measure: the backflow of doubly occupied and empty sites in lattice models
(Tocchio, Becca, Parola and Sorella, Phys. Rev. B 78, 041101 (2008)). A gate of the electron alone cannot say so in a
crystal, where all protons are alike. The factors belong to protons, so all electrons of one spin share them: they turn
the pairing P into D_up P D_down, and the pair functions meet their derivatives once for each proton.
"""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from fnqs.ansatz.message_passing import Linear
from fnqs.ansatz.orbital_basis import shells
from fnqs.ansatz.pair_features import sum_of_each_spin
from fnqs.laplacian.jet import Field, Jet, add, concatenate, elementwise, linear, shift
from fnqs.laplacian.particle_jet import ParticleJet, halves
from fnqs.model_config import ModelConfig

RANGE = 2.0
"""Largest change of a factor from 1. Without a bound it grows where that helps a few walkers, and psi gets nodes that
the electrons do not ask for; below zero it must go, or strongly correlated chains cannot change the sign of a pair."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Neighbourhood:
    """What a configuration contributes to the factors (any leading batch axes).

    Attributes:
        bias: (M, H) what every proton adds to the count of the electrons near it.
        filters: (M, M, H) of messages between protons, empty diagonal.
    """

    bias: jax.Array
    filters: jax.Array


class OccupancyNetwork(nn.Module):
    """Factors of the shells of every proton, for the electrons of each spin."""

    config: ModelConfig

    @nn.compact
    def __call__(self, radial: Field, neighbourhood: Neighbourhood) -> Field:
        """Count the electrons around every proton, smoothly, and let the protons around it know.

        Args:
            radial: (N, M, K) radial functions of electrons and protons (T = 3).
            neighbourhood: of the protons.

        Returns:
            (D, 2, M, S) factors of S shells in D determinants, for spin up and down (T = 3N).
        """
        config, bias, filters = self.config, neighbourhood.bias, neighbourhood.filters
        own = sum_of_each_spin(radial)
        both = concatenate([own, linear(lambda x: x[::-1], own)])
        hidden = Linear(config.occupancies, name="hidden")(both)
        hidden = elementwise(nn.silu, shift(hidden, jnp.broadcast_to(bias, hidden.shape)))
        messages = linear(lambda x: jnp.einsum("pqh,sqh->sph", filters, x), hidden)
        update = Linear(config.occupancies, name="update")(concatenate([hidden, messages]))
        hidden = add(hidden, elementwise(nn.silu, update))
        kinds = int(shells(config)[-1]) + 1
        change = Linear(config.determinants * kinds, gain=0.01, name="factors")(hidden)
        factors = elementwise(lambda x: 1 + RANGE * jnp.tanh(x / RANGE), change)
        return linear(lambda x: jnp.moveaxis(x.reshape(*x.shape[:2], config.determinants, kinds), 2, 0), factors)


def occupied_pairs(values: Field, factors: Field, pairing: jax.Array, members: jax.Array) -> Field:
    """phi_ij = sum_ab u_a(i) D_a P_ab D'_b u_b(j) of up electrons i and down electrons j.

    Args:
        values: (N, B) orbitals u of all electrons, array or ParticleJet.
        factors: (2, M, S) D of both spins, array or Jet in all T coordinates.
        pairing: (B, B) P, real or complex.
        members: (B/M,) shell of each orbital of a proton.

    Returns:
        (N/2, N/2), an array or a Jet in all T coordinates.
    """
    (up, down), factors = (_cast(part, pairing.dtype) for part in (halves(values), factors))
    if not isinstance(up, ParticleJet):
        of_up, of_down = (_of_orbitals(part, members) for part in factors)
        return (up * of_up) @ pairing @ (down * of_down).T
    of_up, of_down = (Jet(factors.value[s], factors.jacobian[:, s], factors.laplacian[s]) for s in (0, 1))
    return _pairs_jet(up, down, of_up, of_down, pairing, members)


def occupied_levels(values: Field, factors: Field, levels: jax.Array, members: jax.Array) -> Field:
    """psi_n(i) = sum_b u_b(i) D_b C_bn of electrons i of one spin.

    Args:
        values: (L, B) orbitals u, array or ParticleJet.
        factors: (M, S) D of that spin, array or Jet in all T coordinates.
        levels: (B, n) C, real or complex.
        members: (B/M,) shell of each orbital of a proton.

    Returns:
        (L, n), an array or a Jet in all T coordinates.
    """
    values, factors = (_cast(part, levels.dtype) for part in (values, factors))
    if not isinstance(values, ParticleJet):
        return (values * _of_orbitals(factors, members)) @ levels
    protons, kinds = factors.shape
    sizes = _of_orbitals(factors.value, members)
    by_factor = _of_shells(values.value[:, None] * levels.T, protons, members, kinds)  # (L, n, M, S)
    met = _of_orbitals(jnp.einsum("yit,tms->yims", values.directions, factors.jacobian), members)
    return Jet(
        (values.value * sizes) @ levels,
        jnp.einsum("yit,yin->tin", values.directions, (values.slopes * sizes) @ levels)
        + jnp.einsum("tms,inms->tin", factors.jacobian, by_factor),
        (values.laplacian * sizes + 2 * jnp.sum(met * values.slopes, axis=0)) @ levels
        + jnp.einsum("ms,inms->in", factors.laplacian, by_factor),
    )


def _of_orbitals(factors: jax.Array, members: jax.Array) -> jax.Array:
    """(..., M, S) to (..., B)."""
    return factors[..., members].reshape(*factors.shape[:-2], -1)


def _of_shells(values: jax.Array, protons: int, members: jax.Array, kinds: int) -> jax.Array:
    """(..., B) to (..., M, S): sums over the orbitals of a shell."""
    by_proton = values.reshape(*values.shape[:-1], protons, -1)
    return by_proton @ jax.nn.one_hot(members, kinds, dtype=values.dtype)


def _pairs_jet(
    left: ParticleJet, right: ParticleJet, mine: Jet, theirs: Jet, matrix: jax.Array, members: jax.Array
) -> Jet:
    """Differentiate phi_ij (L, R), L = R = N/2, in all T coordinates.

    Args:
        left: (L, B) orbitals of the electrons of spin up, with their own Y coordinates.
        right: (R, B) those of spin down.
        mine: (M, S) factors of the protons for spin up.
        theirs: (M, S) those for spin down.
        matrix: (B, B) P.
        members: (B/M,) shell of each orbital of a proton.
    """
    protons, kinds = mine.shape
    u, v = left.value, right.value
    f, g = _of_orbitals(mine.value, members), _of_orbitals(theirs.value, members)
    u_slopes, v_slopes = left.slopes * f, right.slopes * g
    ahead, behind = (v * g) @ matrix.T, (u * f) @ matrix  # (R, B) and (L, B)
    ahead_slopes, behind_slopes = v_slopes @ matrix.T, u_slopes @ matrix
    by_mine, by_theirs = (
        _of_shells(a[:, None] * b, protons, members, kinds) for a, b in ((u, ahead), (behind, v))
    )  # (L, R, M, S): derivatives of phi in the factors

    def meet(directions: jax.Array, factors: Jet) -> jax.Array:
        """Products (Y, N, B) of the gradients of the particles' own coordinates and of the factors."""
        return _of_orbitals(jnp.einsum("yit,tms->yims", directions, factors.jacobian), members)

    jacobian = (
        jnp.einsum("yit,yij->tij", left.directions, u_slopes @ ahead.T)
        + jnp.einsum("yjt,yij->tij", right.directions, jnp.einsum("ib,yjb->yij", behind, v_slopes))
        + jnp.einsum("tms,ijms->tij", mine.jacobian, by_mine)
        + jnp.einsum("tms,ijms->tij", theirs.jacobian, by_theirs)
    )
    overlaps = jnp.einsum("yit,zjt->yizj", left.directions, right.directions)
    between_factors = jnp.einsum("tms,tnr->msnr", mine.jacobian, theirs.jacobian)
    between_factors = between_factors[:, members][..., members].reshape(matrix.shape)
    crossed = (
        jnp.einsum("yizj,yizj->ij", overlaps, jnp.einsum("yib,zjb->yizj", behind_slopes, v_slopes))
        + jnp.sum(meet(left.directions, mine) * left.slopes, axis=0) @ ahead.T
        + jnp.sum(meet(left.directions, theirs) * behind_slopes, axis=0) @ v.T
        + behind @ jnp.sum(meet(right.directions, theirs) * right.slopes, axis=0).T
        + u @ jnp.sum(meet(right.directions, mine) * ahead_slopes, axis=0).T
        + u @ (between_factors * matrix) @ v.T
    )
    laplacian = (
        (left.laplacian * f) @ ahead.T
        + behind @ (right.laplacian * g).T
        + jnp.einsum("ms,ijms->ij", mine.laplacian, by_mine)
        + jnp.einsum("ms,ijms->ij", theirs.laplacian, by_theirs)
        + 2 * crossed
    )
    return Jet((u * f) @ ahead.T, jacobian, laplacian)


def _cast(field: Field, dtype) -> Field:
    return jax.tree.map(lambda part: part.astype(dtype), field)
