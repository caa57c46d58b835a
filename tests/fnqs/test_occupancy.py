"""Factors of the protons' orbitals: their symmetries and their bound."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.ansatz.orbital_basis import shells
from fnqs.ansatz.site_occupancy import RANGE, Neighbourhood, OccupancyNetwork
from fnqs.model_config import ModelConfig

CONFIG = ModelConfig(determinants=2, occupancies=5)
ELECTRONS, PROTONS = 6, 4
NETWORK = OccupancyNetwork(CONFIG)
ROUNDING = 1e-5
"""Of float32 factors."""


def drawn(seed: int, size: float = 1.0):
    """Parameters of the given size, radial functions and neighbourhood."""
    keys = jax.random.split(jax.random.key(seed), 4)
    radial = jax.random.normal(keys[0], (ELECTRONS, PROTONS, CONFIG.radial_functions), jnp.float32)
    neighbourhood = Neighbourhood(
        jax.random.normal(keys[1], (PROTONS, CONFIG.occupancies), jnp.float32),
        jax.random.normal(keys[2], (PROTONS, PROTONS, CONFIG.occupancies), jnp.float32),
    )
    params = NETWORK.init(keys[3], radial, neighbourhood)
    return jax.tree.map(lambda leaf: (size * (leaf + 0.1)).astype(leaf.dtype), params), radial, neighbourhood


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 100.0))
def test_factors_are_bounded(seed, size):
    factors = np.asarray(NETWORK.apply(*drawn(seed, size)))
    assert factors.shape == (2, 2, PROTONS, shells(CONFIG)[-1] + 1)
    assert np.abs(factors - 1).max() <= RANGE * (1 + ROUNDING)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(ELECTRONS // 2)), st.permutations(range(PROTONS)))
def test_factors_belong_to_protons_and_spins(seed, electrons, protons):
    """Electrons of one spin are alike, protons carry their factors along, and exchanged spins exchange them."""
    params, radial, neighbourhood = drawn(seed)
    factors = np.asarray(NETWORK.apply(params, radial, neighbourhood))
    assert factors.std() > 1e-2
    moved = jnp.concatenate([radial[: ELECTRONS // 2][jnp.array(electrons)], radial[ELECTRONS // 2 :]])
    np.testing.assert_allclose(NETWORK.apply(params, moved, neighbourhood), factors, atol=ROUNDING)
    order = jnp.array(protons)
    turned = Neighbourhood(neighbourhood.bias[order], neighbourhood.filters[order][:, order])
    found = NETWORK.apply(params, radial[:, order], turned)
    np.testing.assert_allclose(found, factors[:, :, order], atol=ROUNDING)
    exchanged = NETWORK.apply(params, jnp.roll(radial, ELECTRONS // 2, axis=0), neighbourhood)
    np.testing.assert_allclose(exchanged, factors[:, ::-1], atol=ROUNDING)
