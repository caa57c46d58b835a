"""Message passing: protons into a context once per configuration, electrons into features at every call."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fnqs.ansatz.pair_features import filter_protons, off_diagonal, sum_messages, sum_over_electrons, sum_over_protons
from fnqs.laplacian.jet import Field, add, concatenate, elementwise, linear, product, scale, shift
from fnqs.model_config import ModelConfig

SLOWEST_RATE, FASTEST_RATE = 0.5, 3.0
"""Ends of the geometric series of decay rates (1/bohr) of the radial functions."""


def radial_rates(config: ModelConfig) -> np.ndarray:
    """Decay rates (K,) of the radial functions, 1/bohr."""
    return np.geomspace(SLOWEST_RATE, FASTEST_RATE, config.radial_functions)


class Linear(nn.Module):
    """Dense layer over the last axis of an array or a Jet, with LeCun-normal weights times `gain`."""

    width: int
    bias: bool = True
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Field) -> Field:
        """Map (..., F) to (..., width)."""
        inputs = x.shape[-1]
        initial = nn.initializers.normal(self.gain / np.sqrt(inputs))
        kernel = self.param("kernel", initial, (inputs, self.width), jnp.float32)
        x = linear(lambda y: y @ kernel, x)
        if self.bias:
            x = shift(x, self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32))
        return x


class ProtonNetwork(nn.Module):
    """Invariant features of every proton from the protons around it and the density."""

    config: ModelConfig

    @nn.compact
    def __call__(self, radial: jax.Array, vectors: jax.Array, r_s: jax.Array) -> jax.Array:
        """Run the proton graph.

        Args:
            radial: (N, N, K) radial functions of proton pairs, empty diagonal.
            vectors: (N, N, 3) smooth vectors between protons over r_s.
            r_s: () Wigner-Seitz radius, bohr.

        Returns:
            (N, F) features, F = `proton_features`.
        """
        config, number = self.config, radial.shape[0]
        surroundings = Linear(config.proton_features)(jnp.sum(radial, axis=1))
        directions = jnp.einsum("ijk,ijx->ikx", radial, vectors)
        directions = jnp.swapaxes(Linear(config.vectors, bias=False)(jnp.swapaxes(directions, 1, 2)), 1, 2)
        lengths = jnp.sum(directions**2, axis=-1)
        thermometer = jnp.stack([jnp.log(r_s), 1 / r_s, r_s / 3])
        thermometer = jnp.broadcast_to(thermometer, (number, 3)).astype(radial.dtype)
        features = nn.silu(Linear(config.proton_features)(jnp.concatenate([surroundings, lengths, thermometer], -1)))
        for _ in range(config.proton_rounds):
            filters = Linear(config.proton_features, bias=False)(radial)
            messages = jnp.einsum("ijf,jf->if", filters, features)
            update = Linear(config.proton_features)(jnp.concatenate([features, messages], -1))
            features = features + nn.silu(update)
        return features


class ElectronNetwork(nn.Module):
    """Features and vectors of every electron from the electrons and protons around it.

    All inputs may be arrays or Jets. Electrons 0..N/2-1 have spin up, the others spin down; the weights see
    only whether two spins are equal.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        electron_radial: Field,
        electron_vectors: Field,
        proton_radial: Field,
        proton_vectors: Field,
        proton_filters: jax.Array,
        proton_vector_filters: jax.Array,
        modulation: jax.Array,
    ) -> tuple[Field, Field]:
        """Run the electron graph.

        Args:
            electron_radial: (N, N, K) radial functions, empty diagonal (T = 3).
            electron_vectors: (N, N, 3) smooth vectors over r_s (T = 3).
            proton_radial: (N, M, K) (T = 3).
            proton_vectors: (N, M, 3) (T = 3).
            proton_filters: (M, K, F) what each proton makes of the radial functions.
            proton_vector_filters: (M, K, C) the same for vector channels.
            modulation: (1 + message_rounds, F) factors of the features after each layer, for this configuration.

        Returns:
            features (N, 2F) and vectors (N, 3, C) in units of r_s (T = 3N).
        """
        config = self.config
        by_spin = _split_spins(electron_radial)
        # Filters are linear in the radial functions: where only their sum is wanted, the sum comes first.
        surroundings = add(
            filter_protons(proton_radial, proton_filters),
            Linear(config.features, bias=False, name="density_filters")(sum_over_electrons(by_spin)),
        )
        proton_weights = linear(lambda x: jnp.einsum("imk,mkc->imc", x, proton_vector_filters), proton_radial)
        electron_weights = Linear(config.vectors, bias=False, gain=0.3, name="vector_filters")(by_spin)
        vectors = add(
            sum_over_protons(product("imc,imx->imxc", proton_weights, proton_vectors)),
            sum_over_electrons(product("ijc,ijx->ijxc", electron_weights, electron_vectors)),
        )
        turned = Linear(config.vectors, bias=False, name="vector_mixing")(vectors)
        angles = product("ixc,ixc->ic", vectors, turned)
        features = elementwise(nn.silu, Linear(config.features, name="first")(concatenate([surroundings, angles])))
        features = scale(features, modulation[0])
        for round_number in range(config.message_rounds):
            filters = off_diagonal(Linear(config.features, bias=False, name=f"filters_{round_number}")(by_spin))
            sent = Linear(config.features, bias=False, name=f"sent_{round_number}")(features)
            messages = sum_messages(filters, sent)
            update = Linear(config.features, name=f"update_{round_number}")(concatenate([features, messages]))
            features = scale(add(features, elementwise(nn.silu, update)), modulation[1 + round_number])
        return concatenate([features, surroundings]), vectors


def _split_spins(radial: Field) -> Field:
    """Give same-spin and opposite-spin pairs channels of their own: (N, N, K) to (N, N, 2K)."""

    def split(x: jax.Array) -> jax.Array:
        number = x.shape[0]
        spin = jnp.arange(number) < number // 2
        same = (spin[:, None] == spin[None])[..., None].astype(x.dtype)
        return jnp.concatenate([x * same, x * (1 - same)], axis=-1)

    return linear(split, radial)
