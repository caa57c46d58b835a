"""Estimators from the first derivatives of log psi: kinetic stress, forces of finite variance, nodes.

Where psi has a node, products of two derivatives of log psi grow as 1/d^2 with the distance d from it. Their means
exist, their variances do not. They are multiplied by a polynomial of d that falls to zero at the node and whose
missing part integrates to zero over the shell (Pathak and Wagner, AIP Advances 10, 085213 (2020)), so that the bias is
of third order in the shell's width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from fnqs.ewald import EwaldLists

NODE_SHELL = 0.03
"""Width of the shell around the nodes, in r_s."""


def node_factor(gradient: Inexact[Array, "n 3"], width: Float[Array, ""]) -> Float[Array, ""]:
    """7 x^6 - 15 x^4 + 9 x^2 of the distance x from the node in units of the shell's width, 1 outside of it.

    Args:
        gradient: (N, 3) of log psi, 1/bohr; one over its length is the distance from the node.
        width: () of the shell, bohr.
    """
    square = 1 / (width**2 * jnp.sum(jnp.abs(gradient) ** 2))
    inside = square * (9 - square * (15 - 7 * square))
    return jnp.where(square < 1, inside, jnp.ones_like(square))


def kinetic_tensor(gradient: Inexact[Array, "n 3"]) -> Float[Array, "3 3"]:
    """Re sum_i conj(d_a log psi) d_b log psi in 1/bohr^2: its mean is twice the kinetic energy by directions, in Ha."""
    return jnp.real(jnp.einsum("ia,ib->ab", jnp.conj(gradient), gradient))


def largest_sphere(lists: EwaldLists) -> jax.Array:
    """Radius () in bohr of the largest sphere inside the cell's parallelepiped: half of its smallest height."""
    return 0.5 / jnp.sqrt(jnp.max(jnp.sum(jnp.asarray(lists.inverse_cell) ** 2, axis=0)))


def wrapped_displacements(lists: EwaldLists, first: jax.Array, second: jax.Array) -> jax.Array:
    """Displacements (M, L, 3), first minus second, inside the cell's parallelepiped around zero, bohr."""
    inverse, cell = (jnp.asarray(part, first.dtype) for part in (lists.inverse_cell, lists.cell))
    apart = first[:, None] - second[None]
    return apart - jnp.round(apart @ inverse) @ cell


def zero_variance_term(
    lists: EwaldLists, electrons: Float[Array, "n 3"], gradient: Inexact[Array, "n 3"]
) -> Inexact[Array, "n 3"]:
    """[(H - E_L) Q psi] / psi in Ha/bohr, whose mean is zero and which takes the 1/r^2 from d E_L / d R_I.

    Q_I = sum_i (r_i - R_I) f(d) / d with d = |r_i - R_I|, Assaraf and Caffarel, J. Chem. Phys. 119, 10536 (2003), here
    with f = (1 - d^2 / c^2)^3 inside the largest sphere of the cell and zero outside: -(nabla^2 Q)/2 - (nabla Q)(nabla
    log psi) is (r - R)/d^3 at the proton, which the attraction has with the other sign.

    Args:
        lists: of the configuration.
        electrons: (N, 3) bohr.
        gradient: (N, 3) of log psi, complex where psi is.

    Returns:
        (N, 3) for every proton; complex where psi is, and its real part counts.
    """
    reach = largest_sphere(lists).astype(electrons.dtype)
    x = wrapped_displacements(lists, electrons, jnp.asarray(lists.protons, electrons.dtype))
    distance = jnp.sqrt(jnp.sum(x**2, axis=-1))
    kind = gradient.dtype
    u = jnp.maximum(1 - (distance / reach) ** 2, 0.0)
    curvature = u**3 / distance**3 + 9 * u**2 / (reach**2 * distance) - 12 * distance * u / reach**4
    value = u**3 / distance
    slope = -6 * u**2 / reach**2 - u**3 / distance**2
    along = jnp.einsum("ipa,ia->ip", x.astype(kind), gradient) * (slope / distance).astype(kind)
    turned = jnp.einsum("ip,ia->pa", value.astype(kind), gradient)
    return jnp.einsum("ip,ipa->pa", curvature.astype(kind) - along, x.astype(kind)) - turned
