"""The Coulomb energy of electrons and protons in a periodic cell, by Ewald summation.

The cell is neutral and the boundary at infinity conducting (tin foil), so no background or surface term is
left. The numbers of lattice vectors and of reciprocal vectors depend on N only, not on the cell, so that one
compiled program serves every cell; what the cell decides is the splitting between the two sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from ase.geometry import minkowski_reduce
from jaxtyping import Array, Float
from scipy.special import erfc

from fnqs.configuration import Configuration
from fnqs.periodic.cell import cell_volume, reciprocal_vectors
from fnqs.periodic.trigonometry import cos_sin_turns

STANDARD_ACCURACY = 1e-7
"""Truncation error (Ha per particle) that the numbers of vectors below are made for."""

NUMBERS = ((4, 125, 64), (16, 45, 544), (None, 27, 1280))
"""Largest N, lattice vectors, reciprocal vectors.

They are enough for the thinnest cells that are accepted, rods of 0.25 by 0.25 by 16 cube roots of the volume,
and both sums cost about the same. Common cells are then exact to about 1e-12 Ha per particle.
"""

DESCENT_SWEEPS = 12
"""Sweeps of coordinate descent for the distance of a box from the origin; reduced cells converge in a few."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EwaldLists:
    """Constants of the Coulomb energy of one configuration (any leading batch axes), float64.

    Attributes:
        cell: (3, 3) Minkowski-reduced lattice vectors as rows, bohr.
        inverse_cell: (3, 3) its inverse, 1/bohr.
        protons: (N, 3) bohr.
        images: (n_R, 3) lattice vectors of the real-space sum, zero included, bohr.
        waves: (n_G, 3) half of the reciprocal vectors, as multiples of those of `cell`.
        wave_weights: (n_G,) weight of the squared structure factor, Ha; zero for padding.
        proton_structure: (n_G, 2) real and imaginary part of the protons' structure factor.
        splitting: () inverse length that divides the two sums, 1/bohr.
        constant: () proton-proton energy and the self-energies of all particles, Ha.
    """

    cell: np.ndarray
    inverse_cell: np.ndarray
    protons: np.ndarray
    images: np.ndarray
    waves: np.ndarray
    wave_weights: np.ndarray
    proton_structure: np.ndarray
    splitting: np.ndarray
    constant: np.ndarray


def make_ewald(
    configuration: Configuration, *, accuracy: float = STANDARD_ACCURACY, splitting: float | None = None
) -> EwaldLists:
    """Prepare the sums for one configuration on the host in float64.

    Args:
        configuration: cell and protons; the twist plays no role.
        accuracy: truncation error to aim at, Ha per particle; the number of reciprocal vectors follows.
        splitting: inverse length dividing the two sums, 1/bohr; by default the one that makes the
            truncation errors of both equal.
    """
    protons = np.asarray(configuration.protons, np.float64)
    cell = np.asarray(minkowski_reduce(np.asarray(configuration.cell, np.float64))[0])
    number_images, number_waves = numbers_of_vectors(len(protons), accuracy)
    images, real_cutoff = _nearest_images(cell, number_images)
    waves, wave_cutoff = shortest_waves(cell, number_waves)
    if splitting is None:
        # Equal exponents of both truncation errors, exp(-(splitting r)^2) and exp(-(g / 2 splitting)^2).
        splitting = float(np.sqrt(wave_cutoff / (2 * real_cutoff)))

    inverse = np.linalg.inv(cell)
    square = np.sum((waves @ reciprocal_vectors(cell)) ** 2, axis=1)
    weights = 4 * np.pi / abs(cell_volume(cell)) * np.exp(-square / (4 * splitting**2)) / square
    # Whole shells only, so that the result does not prefer one of several equivalent directions.
    weights[square >= (wave_cutoff * (1 - 1e-9)) ** 2] = 0
    phases = 2 * np.pi * (protons @ inverse) @ waves.T
    structure = np.stack([np.cos(phases).sum(0), np.sin(phases).sum(0)], -1)

    first, second = np.triu_indices(len(protons), 1)
    pairs = protons[first] - protons[second]
    pairs -= np.round(pairs @ inverse) @ cell
    distances = np.linalg.norm(pairs[:, None] + images, axis=-1)
    own = np.linalg.norm(images[1:], axis=-1)
    self_energy = 0.5 * np.sum(erfc(splitting * own) / own) - splitting / np.sqrt(np.pi)
    constant = (
        np.sum(erfc(splitting * distances) / distances)
        + np.sum(weights * np.sum(structure**2, -1))
        + 2 * len(protons) * self_energy
    )
    return EwaldLists(
        cell, inverse, protons, images, waves, weights, structure, np.array(splitting), np.array(constant)
    )


def ewald_energy(lists: EwaldLists, electrons: Float[Array, "n 3"]) -> Float[Array, ""]:
    """Coulomb energy of all electrons and protons of the cell, () in Ha, in the dtype of the electrons.

    Args:
        lists: of one configuration, from `make_ewald`.
        electrons: (N, 3) bohr, anywhere in space.
    """
    lists = jax.tree.map(lambda x: jnp.asarray(x, electrons.dtype), lists)
    # Coordinates come first in every array: loops over particles and vectors then run along memory.
    positions, protons = electrons.T, lists.protons.T
    first, second = np.triu_indices(electrons.shape[0], 1)
    repelling = positions[:, first] - positions[:, second]
    attracting = (positions[:, :, None] - protons[:, None, :]).reshape(3, -1)
    real = _real_space(lists, repelling) - _real_space(lists, attracting)

    fractions = lists.inverse_cell.T @ positions
    fractions = fractions - jnp.round(fractions)
    x, y, z = fractions[:, :, None]
    cosine, sine = cos_sin_turns(x * lists.waves[:, 0] + y * lists.waves[:, 1] + z * lists.waves[:, 2])
    cosine, sine = jnp.sum(cosine, axis=0), jnp.sum(sine, axis=0)
    proton_cosine, proton_sine = lists.proton_structure[:, 0], lists.proton_structure[:, 1]
    # |S_e - S_p|^2 without the |S_p|^2 that the constant has.
    squares = cosine * (cosine - 2 * proton_cosine) + sine * (sine - 2 * proton_sine)
    return real + jnp.sum(lists.wave_weights * squares) + lists.constant


def numbers_of_vectors(n_electrons: int, accuracy: float = STANDARD_ACCURACY) -> tuple[int, int]:
    """Lattice and reciprocal vectors used for N electrons: the static shapes of `EwaldLists`."""
    images, waves = next((r, g) for limit, r, g in NUMBERS if limit is None or n_electrons <= limit)
    # The exponent of the error is the product of both cutoffs, and the vectors fill a sphere.
    return images, int(np.ceil(waves * (np.log(accuracy) / np.log(STANDARD_ACCURACY)) ** 3))


def _real_space(lists: EwaldLists, displacements: jax.Array) -> jax.Array:
    """Sum of erfc(splitting d) / d over displacements (3, P) and their images."""
    wrapped = displacements - lists.cell.T @ jnp.round(lists.inverse_cell.T @ displacements)
    x, y, z = wrapped[:, None, :] + lists.images.T[:, :, None]
    distance = jnp.sqrt(x * x + y * y + z * z)
    return jnp.sum(jnp.sum(jax.lax.erfc(lists.splitting * distance) / distance, axis=0))


def _nearest_images(cell: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Pick the lattice vectors (count, 3) whose boxes lie nearest to the origin, and the distance left out.

    The box of a vector holds the points whose fractions differ from it by at most 1/2; zero comes first.
    """
    heights = 2 * np.pi / np.linalg.norm(reciprocal_vectors(cell), axis=1)
    reach = 0.5 * (count * abs(cell_volume(cell))) ** (1 / 3)
    limits = np.ceil(reach / heights - 0.5).astype(int)
    indices = _integer_box(limits)
    metric = cell @ cell.T
    middles = np.ascontiguousarray(indices.T, np.float64)
    fractions = middles.copy()
    for _ in range(DESCENT_SWEEPS):
        for a, (b, c) in enumerate(((1, 2), (0, 2), (0, 1))):
            lowest = (metric[a, b] * fractions[b] + metric[a, c] * fractions[c]) / -metric[a, a]
            fractions[a] = np.minimum(np.maximum(lowest, middles[a] - 0.5), middles[a] + 0.5)
    distances = np.linalg.norm(fractions.T @ cell, axis=1)
    distances[len(indices) // 2] = -1.0
    order = np.argsort(distances, kind="stable")
    outside = np.min((limits + 0.5) * heights)
    cutoff = min(outside, distances[order[count]]) if len(order) > count else outside
    return indices[order[:count]] @ cell, float(cutoff)


def shortest_waves(cell: Float[np.ndarray, "3 3"], count: int) -> tuple[Float[np.ndarray, "{count} 3"], float]:
    """Pick the shortest reciprocal vectors of a half space and find the length of the next one.

    Returns:
        (count, 3) integer multiples of the reciprocal vectors, and a length in 1/bohr.
    """
    vectors = reciprocal_vectors(cell)
    lengths = np.linalg.norm(cell, axis=1)
    reach = (12 * np.pi**2 * (count + 1) / abs(cell_volume(cell))) ** (1 / 3)
    while True:
        indices = _integer_box(np.floor(reach * lengths / (2 * np.pi)).astype(int))
        indices = indices[len(indices) // 2 + 1 :]
        norms = np.linalg.norm(indices @ vectors, axis=1)
        order = np.argsort(norms, kind="stable")[: count + 1]
        if len(order) > count and norms[order[count]] <= reach:
            return indices[order[:count]].astype(np.float64), float(norms[order[count]])
        reach *= 1.15


def _integer_box(limits: np.ndarray) -> np.ndarray:
    """All integer triples (M, 3) with |n_a| <= limits_a, in an order that negation reverses."""
    axes = [np.arange(-limit, limit + 1) for limit in limits]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
