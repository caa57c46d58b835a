"""The Coulomb energy by kind of pair, with its derivatives by the protons' positions and by strain.

Each kind has a neutralising background of its own, as in an electron gas; in their sum the backgrounds cancel. A strain
e moves everything, r -> r (1 + e), cell, protons and electrons alike; lattice and reciprocal vectors keep their integer
names, so the sums are smooth functions of it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fnqs.ewald import EwaldLists


class CoulombDerivatives(NamedTuple):
    """Coulomb energies of the electrons of one walker, Ha, and derivatives of their sum.

    Attributes:
        electron_electron, electron_proton: ().
        protons: (N, 3) by the protons' positions at fixed electrons, Ha/bohr.
        strain: (3, 3) by strain, symmetric, Ha.
    """

    electron_electron: jax.Array
    electron_proton: jax.Array
    protons: jax.Array
    strain: jax.Array


def coulomb_derivatives(lists: EwaldLists, electrons: Float[Array, "n 3"]) -> CoulombDerivatives:
    """Energies and derivatives of one walker (N, 3) in bohr, without what is of the protons alone."""
    lists = jax.tree.map(lambda x: jnp.asarray(x, electrons.dtype), lists)

    def total(protons: jax.Array, strain: jax.Array):
        energies = electron_energies(lists, electrons, protons, strain)
        return energies[0] + energies[1], energies

    start = (lists.protons, jnp.zeros((3, 3), electrons.dtype))
    (_, energies), slopes = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(*start)
    return CoulombDerivatives(energies[0], energies[1], slopes[0], 0.5 * (slopes[1] + slopes[1].T))


def proton_derivatives(lists: EwaldLists) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energy () of the protons among themselves in Ha, its derivatives (N, 3) and (3, 3) as above; in float64."""
    lists = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), lists)
    energy, slopes = _proton_slopes(lists, lists.protons, jnp.zeros((3, 3), jnp.float64))
    return np.asarray(energy), np.asarray(slopes[0]), np.asarray(0.5 * (slopes[1] + slopes[1].T))


def electron_energies(
    lists: EwaldLists, electrons: jax.Array, protons: jax.Array, strain: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Electron-electron and electron-proton energy () in Ha of a strained cell.

    Args:
        lists: of the cell before it is strained, in the dtype of the electrons.
        electrons: (N, 3) bohr, before the strain.
        protons: (N, 3) bohr, before the strain; other ones than those of the lists are allowed.
        strain: (3, 3).
    """
    lists, protons = _strained(lists, protons, strain)
    electrons = electrons + electrons @ strain
    number = len(electrons)
    pairs = (electrons[:, None] - protons[None]).reshape(-1, 3)
    electron_waves, proton_waves = _structure(lists, electrons), _structure(lists, protons)
    overlap = jnp.sum(lists.wave_weights * jnp.sum(electron_waves * proton_waves, axis=0))
    attraction = -_real_space(lists, pairs) - 2 * overlap - 2 * _background(lists, number)
    return _repulsion(lists, electrons), attraction


@jax.jit
def _proton_slopes(lists: EwaldLists, protons: jax.Array, strain: jax.Array):
    def total(protons: jax.Array, strain: jax.Array) -> jax.Array:
        return _repulsion(*_strained(lists, protons, strain))

    return jax.value_and_grad(total, argnums=(0, 1))(protons, strain)


def _repulsion(lists: EwaldLists, points: jax.Array) -> jax.Array:
    """Energy of equal unit charges (N, 3) in a uniform background, Ha."""
    first, second = np.triu_indices(len(points), 1)
    own = _lengths(jnp.asarray(lists.images)[1:])
    itself = 0.5 * jnp.sum(jax.lax.erfc(lists.splitting * own) / own) - lists.splitting / math.sqrt(math.pi)
    waves = jnp.sum(lists.wave_weights * jnp.sum(_structure(lists, points) ** 2, axis=0))
    pairs = _real_space(lists, points[first] - points[second])
    return pairs + waves + len(points) * itself + _background(lists, len(points))


def _background(lists: EwaldLists, number: int) -> jax.Array:
    """Energy of the background of N unit charges with the part of the sums that has no wave, Ha."""
    return -0.5 * np.pi * number**2 * jnp.abs(jnp.linalg.det(lists.inverse_cell)) / lists.splitting**2


def _strained(lists: EwaldLists, protons: jax.Array, strain: jax.Array) -> tuple[EwaldLists, jax.Array]:
    cell = lists.cell + lists.cell @ strain
    inverse = jnp.linalg.inv(cell)
    square = jnp.sum((2 * np.pi * lists.waves @ inverse.T) ** 2, axis=1)
    weights = 4 * np.pi * jnp.abs(jnp.linalg.det(inverse)) * jnp.exp(-square / (4 * lists.splitting**2)) / square
    strained = dataclasses.replace(
        lists,
        cell=cell,
        inverse_cell=inverse,
        images=lists.images + lists.images @ strain,
        wave_weights=jnp.where(lists.wave_weights == 0, jnp.zeros_like(weights), weights),
    )
    return strained, protons + protons @ strain


def _structure(lists: EwaldLists, points: jax.Array) -> jax.Array:
    """Real and imaginary part (2, n_G) of the structure factor of points (M, 3)."""
    fractions = points @ lists.inverse_cell
    fractions = fractions - jax.lax.stop_gradient(jnp.round(fractions))
    phases = 2 * np.pi * fractions @ lists.waves.T
    return jnp.stack([jnp.sum(jnp.cos(phases), axis=0), jnp.sum(jnp.sin(phases), axis=0)])


def _real_space(lists: EwaldLists, displacements: jax.Array) -> jax.Array:
    """Sum of erfc(splitting d) / d over displacements (P, 3) and their images."""
    turns = jax.lax.stop_gradient(jnp.round(displacements @ lists.inverse_cell))
    distance = _lengths((displacements - turns @ lists.cell)[:, None] + lists.images)
    return jnp.sum(jax.lax.erfc(lists.splitting * distance) / distance)


def _lengths(vectors: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(vectors**2, axis=-1))
