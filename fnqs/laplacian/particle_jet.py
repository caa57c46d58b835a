"""Fields of one particle in the few coordinates that they really depend on.

An orbital amplitude of electron i depends on the 3N coordinates only through the electron's backflow position
and a few gates. Its derivatives are taken in those few numbers, and they meet the 3N coordinates once, in the
pair functions of the determinant: N times less work and memory in what would otherwise dominate the Laplacian.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fnqs.laplacian.jet import Field, Jet, linear, product


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ParticleJet:
    """A field (N, ...) of particles with derivatives in Y coordinates of each particle's own.

    Attributes:
        value: (N, ...).
        slopes: (Y, N, ...) derivatives in the particle's own coordinates.
        directions: (Y, N, T) derivatives of those coordinates in all T underlying ones.
        laplacian: (N, ...) in the T underlying coordinates.
    """

    value: jax.Array
    slopes: jax.Array
    directions: jax.Array
    laplacian: jax.Array


def own_frame(positions: Jet) -> tuple[Jet, jax.Array]:
    """Choose three coordinates of every particle that are orthonormal in the T underlying ones.

    The Laplacian of a function of the position alone is then the Laplacian in these three.

    Args:
        positions: (N, 3), Jet in T coordinates.

    Returns:
        the positions as a Jet in the three coordinates of each particle, and the frame (3, N, T): the
        derivatives of those coordinates, orthonormal for every particle.
    """
    rows = jnp.moveaxis(positions.jacobian, 0, 2)  # (N, 3, T)
    frame, jacobian = [], []
    for x in range(3):  # Gram-Schmidt, twice over, so that the rows are orthonormal to rounding
        row, parts = rows[:, x], [jnp.zeros_like(rows[:, 0, 0])] * 3
        for _ in range(2):
            for w, unit in enumerate(frame):
                overlap = jnp.sum(row * unit, axis=-1)
                row = row - overlap[:, None] * unit
                parts[w] = parts[w] + overlap
        parts[x] = jnp.sqrt(jnp.sum(row**2, axis=-1))
        frame.append(row / parts[x][:, None])
        jacobian.append(jnp.stack(parts))
    return Jet(positions.value, jnp.stack(jacobian, -1), positions.laplacian), jnp.stack(frame)


def gated(values: Jet, frame: jax.Array, gates: Jet, mixing: jax.Array) -> ParticleJet:
    """Multiply functions of the position by 1 + gates @ mixing.

    Args:
        values: (N, B), Jet in the three coordinates of `own_frame`.
        frame: (3, N, T) of `own_frame`.
        gates: (N, A), Jet in all T coordinates.
        mixing: (A, B).

    Returns:
        (N, B) with Y = 3 + A coordinates: those of the frame and the gates, what the frame sees of them taken out.
    """
    along, across = along_and_across(frame, gates)
    factor = linear(lambda a: a @ mixing, Jet(gates.value, along, gates.laplacian))
    result = product("ib,ib->ib", Jet(1 + factor.value, factor.jacobian, factor.laplacian), values)
    return ParticleJet(
        result.value,
        jnp.concatenate([result.jacobian, mixing[:, None] * values.value]),
        jnp.concatenate([frame, across]),
        result.laplacian,
    )


def along_and_across(frame: jax.Array, gates: Jet) -> tuple[jax.Array, jax.Array]:
    """Split derivatives of gates (N, A): in the frame, (3, N, A), and what the frame does not see, (A, N, T)."""
    along = jnp.einsum("wit,tia->wia", frame, gates.jacobian)
    across = jnp.moveaxis(gates.jacobian, 2, 0) - jnp.einsum("wia,wit->ati", along, frame)
    return along, jnp.swapaxes(across, 1, 2)


def bilinear_pairs(left: ParticleJet, right: ParticleJet, matrix: jax.Array) -> Jet:
    """sum_ab u_a(i) P_ab v_b(j) of particles i on the left and j on the right, as a Jet in all T coordinates.

    Args:
        left: (L, B).
        right: (R, B).
        matrix: (B, B) P.

    Returns:
        (L, R).
    """
    left, right = (_cast(side, matrix.dtype) for side in (left, right))
    turned = right.value @ matrix.T
    left_slopes = left.slopes @ matrix
    first = jnp.einsum("yia,ja->yij", left.slopes, turned)
    second = jnp.einsum("ib,yjb->yij", left.value @ matrix, right.slopes)
    jacobian = jnp.einsum("yit,yij->tij", left.directions, first) + jnp.einsum("yjt,yij->tij", right.directions, second)
    overlaps = jnp.einsum("yit,zjt->yizj", left.directions, right.directions)
    mixed = jnp.einsum("yib,zjb->yizj", left_slopes, right.slopes)
    laplacian = (
        left.laplacian @ turned.T
        + left.value @ matrix @ right.laplacian.T
        + 2 * jnp.einsum("yizj,yizj->ij", overlaps, mixed)
    )
    return Jet(left.value @ turned.T, jacobian, laplacian)


def halves(field: Field) -> tuple[Field, Field]:
    """Split a field of particles, array or ParticleJet, into its first and its second half."""
    if not isinstance(field, ParticleJet):
        half = field.shape[0] // 2
        return field[:half], field[half:]
    half = field.value.shape[0] // 2
    return (
        ParticleJet(field.value[:half], field.slopes[:, :half], field.directions[:, :half], field.laplacian[:half]),
        ParticleJet(field.value[half:], field.slopes[:, half:], field.directions[:, half:], field.laplacian[half:]),
    )


def _cast(field: ParticleJet, dtype) -> ParticleJet:
    return jax.tree.map(lambda part: part.astype(dtype), field)
