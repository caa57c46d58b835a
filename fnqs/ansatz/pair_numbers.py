"""Numbers of the pairs that the network gives, within bounds: sharpness of the Fermi function, and the last pair."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

COLD = 1e4
"""Inverse temperature of a Slater determinant, in Fermi energies of free electrons: far below any gap it may meet."""

START_SHARPNESS = 8.0
"""Inverse temperature of the pairs that an untrained model starts with, in the same unit."""

SHARPNESS_RANGE = 8.0
"""Factor by which training may raise or lower it. Without a limit it grows until the occupations jump where levels
cross, with derivatives by the levels' energies that end the optimisation; gaps below E_F / 64 are none."""

START_VIRTUAL = 0.1
"""Amplitude of the pairs in empty levels that an untrained model starts with."""

START_LAST_PAIR = 0.3
"""Amplitude of the last pair that an untrained model starts with, where closed shells have a 1."""

LEAST_LAST_PAIR = 1e-4
"""The smallest that training may make it: the difference of determinants that it enters must not be rounded away."""

RATIO_RANGE = 4.0
"""Factor by which training may raise or lower the weight of the last pair beside closed shells."""

START_MOMENTS, MOMENTS_RANGE = 0.6, 4.0
"""Field of the local moments that an untrained model starts with, in Fermi energies of free electrons, and the factor
by which training may raise or lower it."""


def moments_of(numbers: jax.Array) -> jax.Array:
    """Fields of local moments in Fermi energies, from what the network gives: bounded smoothly."""
    bound = math.log(MOMENTS_RANGE)
    return START_MOMENTS * jnp.exp(bound * jnp.tanh(numbers / bound))


def sharpness_of(numbers: jax.Array) -> jax.Array:
    """Inverse temperatures in Fermi energies, from what the network gives: START_SHARPNESS exp(x), bounded smoothly."""
    bound = math.log(SHARPNESS_RANGE)
    return START_SHARPNESS * jnp.exp(bound * jnp.tanh(numbers / bound))


def last_pair_of(numbers: jax.Array) -> jax.Array:
    """Size and weight (D, 2) of the last pair, from what the network gives.

    A second pair of its kind has the wrong symmetry, so the best size is small; as an exponential of a number it
    becomes so without large derivatives. The weight is around 1, bounded smoothly.
    """
    size = nn.sigmoid(numbers[:, 0] + math.log(START_LAST_PAIR / (1 - START_LAST_PAIR)))
    size = LEAST_LAST_PAIR + (1 - LEAST_LAST_PAIR) * size
    bound = math.log(RATIO_RANGE)
    return jnp.stack([size, jnp.exp(bound * jnp.tanh(numbers[:, 1] / bound))], axis=1)
