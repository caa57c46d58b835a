"""Distances and density waves of one walker: what pair correlation functions and structure factors are means of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fnqs.ewald import EwaldLists
from fnqs.observables.derivatives import wrapped_displacements


def histogram(distances: jax.Array, edges: Float[Array, " b"]) -> Float[Array, " b-1"]:
    """Count distances (...) in the intervals between ascending edges (B + 1,), all of one width."""
    count = len(edges) - 1
    place = jnp.floor((distances - edges[0]) * (count / (edges[-1] - edges[0]))).astype(jnp.int32)
    inside = (place >= 0) & (place < count)
    return jnp.zeros(count, edges.dtype).at[jnp.clip(place, 0, count - 1)].add(inside.astype(edges.dtype))


def pair_counts(lists: EwaldLists, electrons: Float[Array, "n 3"], edges: Float[Array, " b"]) -> jax.Array:
    """Count distances, (3, B): electrons of equal spin, of opposite spin, electrons and protons.

    Every pair counts once; distances are exact below half of the cell's smallest height.
    """
    half = electrons.shape[0] // 2
    among = jnp.sqrt(jnp.sum(wrapped_displacements(lists, electrons, electrons) ** 2, axis=-1))
    first, second = np.triu_indices(half, 1)
    equal = jnp.concatenate([among[first, second], among[first + half, second + half]])
    to_protons = wrapped_displacements(lists, electrons, jnp.asarray(lists.protons, electrons.dtype))
    proton_distances = jnp.sqrt(jnp.sum(to_protons**2, axis=-1))
    return jnp.stack([histogram(d, edges) for d in (equal, among[:half, half:], proton_distances)])


def proton_pair_counts(lists: EwaldLists, edges: np.ndarray) -> np.ndarray:
    """Count the distances of protons (B,), every pair once; as `pair_counts`."""
    protons = jnp.asarray(lists.protons)
    first, second = np.triu_indices(len(lists.protons), 1)
    distances = jnp.sqrt(jnp.sum(wrapped_displacements(lists, protons, protons) ** 2, axis=-1))[first, second]
    return np.asarray(histogram(distances, jnp.asarray(edges)))


def pairs_without_correlation(edges: np.ndarray, number: int, volume: float) -> np.ndarray:
    """Count what independent particles would have, (4, B): as `pair_counts`, then protons among themselves.

    Distances to images are among them, as they are in `pair_counts`.
    """
    shells = 4 * np.pi / 3 * np.diff(edges**3) / volume
    half = number // 2
    pairs = np.array([half * (half - 1), half**2, number**2, number * (number - 1) / 2])
    return pairs[:, None] * shells


def density_waves(waves: Float[Array, "g 3"], points: Float[Array, "n 3"]) -> Float[Array, "2 g"]:
    """Real and imaginary part of sum_i exp(i G r_i) for wave vectors (n_G, 3), 1/bohr."""
    phases = points @ waves.T
    return jnp.stack([jnp.sum(jnp.cos(phases), axis=0), jnp.sum(jnp.sin(phases), axis=0)])


def voxel_counts(
    inverse_cell: Float[Array, "3 3"], points: Float[Array, "n 3"], shape: tuple[int, int, int]
) -> jax.Array:
    """Count points in the voxels of a grid over the cell, flattened with the last axis running fastest."""
    fractions = points @ inverse_cell
    sizes = jnp.asarray(shape, points.dtype)
    place = jnp.clip((fractions - jnp.floor(fractions)) * sizes, 0, sizes - 1).astype(jnp.int32)
    flat = (place[:, 0] * shape[1] + place[:, 1]) * shape[2] + place[:, 2]
    return jnp.zeros(int(np.prod(shape)), points.dtype).at[flat].add(1)
