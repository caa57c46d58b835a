"""Parameters of models from before the last pair had one form, in the form of now."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

OLD, NEW = "open_shell_head", "last_pair_head"
"""The old head gave a size and the ratios of three further states for each determinant; the new one size and weight."""

OLD_STATES = 4


def older_template(template: dict[str, Any], determinants: int) -> dict[str, Any]:
    """Shapes of the parameters that a model from then has saved, from those of now."""
    encoder = dict(template["encoder"])
    head = encoder.pop(NEW)

    def resized(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leaf.shape[:-1], determinants * OLD_STATES), leaf.dtype)

    return template | {"encoder": encoder | {OLD: jax.tree.map(resized, head)}}


def from_older(params: dict[str, Any], determinants: int) -> dict[str, Any]:
    """Keep the size that the old head gave, start the weight where an untrained model does."""
    encoder = dict(params["encoder"])

    def sizes(leaf: jax.Array) -> jax.Array:
        size = leaf.reshape(*leaf.shape[:-1], determinants, OLD_STATES)[..., 0]
        return jnp.stack([size, jnp.zeros_like(size)], axis=-1).reshape(*leaf.shape[:-1], 2 * determinants)

    head = jax.tree.map(sizes, encoder.pop(OLD))
    return params | {"encoder": encoder | {NEW: head}}
