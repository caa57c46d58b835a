"""The sampled total spin, where it is known."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.configuration import make_configuration
from fnqs.sampling.metropolis import metropolis
from fnqs.spin import sampled_spin_squared
from fnqs.system import make_system

RING = 7.2 * np.eye(3)
SITES = 1.8 * np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])


@pytest.mark.parametrize(("spin", "expected"), [("singlet", 0.0), ("triplet", 2.0)])
def test_two_electrons_have_the_spin_asked_for(model, spin, expected):
    """One up and one down electron: psi is even or odd in their exchange, so every sample is 0 or 2."""
    case = model.case(2)
    config = dataclasses.replace(model.config, spin=spin)
    wavefunction = dataclasses.replace(model.wavefunction, config=config)
    context = jax.jit(wavefunction.encode)(model.params, make_system(case.configuration, config))
    keys = jax.random.split(jax.random.key(0), 8)
    walkers = case.electrons + 0.3 * jax.random.normal(keys[0], (8, *case.electrons.shape))
    draw = jax.jit(jax.vmap(partial(sampled_spin_squared, wavefunction), (None, None, 0, 0)))
    found = draw(model.params, context, walkers, keys)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_mean_over_pairs_is_the_sum_over_pairs(model):
    """The draw is unbiased: over many keys its mean is N/2 - sum_ij psi(P_ij r)/psi(r)."""
    case = model.case(4)

    def log_psi(electrons):
        phase, log = model.log_psi(case, electrons)
        return phase.real, log

    sign, log = log_psi(case.electrons)
    total = 2.0
    for i in (0, 1):
        for j in (2, 3):
            exchanged = case.electrons.at[jnp.asarray([i, j])].set(case.electrons[jnp.asarray([j, i])])
            other_sign, other = log_psi(exchanged)
            total -= sign * other_sign * np.exp(other - log)
    keys = jax.random.split(jax.random.key(1), 4096)
    draw = jax.jit(
        jax.vmap(lambda key: sampled_spin_squared(model.wavefunction, model.params, case.context, case.electrons, key))
    )
    samples = np.asarray(draw(keys))
    assert np.std(samples) > 0.1  # pairs differ
    assert np.mean(samples) == pytest.approx(total, abs=5 * np.std(samples) / 64)


@pytest.mark.parametrize(("spin", "expected"), [("singlet", 0.0), ("triplet", 2.0)])
def test_a_ring_of_four_has_the_spin_asked_for_in_the_mean(model, spin, expected):
    """Backflow that depends on spin may mix a little in; the determinants themselves have a definite spin."""
    config = dataclasses.replace(model.config, spin=spin)
    wavefunction = dataclasses.replace(model.wavefunction, config=config)
    system = make_system(make_configuration(RING, SITES), config)
    params = wavefunction.init(jax.random.key(0), system)
    context = jax.jit(wavefunction.encode)(params, system)
    walkers = jnp.asarray(SITES, jnp.float32) + 0.1 * jax.random.normal(jax.random.key(1), (1, 512, 4, 3), jnp.float32)
    contexts = jax.tree.map(lambda leaf: leaf[None], context)
    move = jax.jit(partial(metropolis, wavefunction))
    moved, _ = move(params, contexts, walkers, jnp.asarray([0.5]), jax.random.key(2), 100)

    def samples_of(electrons, keys):
        return jax.vmap(lambda key: sampled_spin_squared(wavefunction, params, context, electrons, key))(keys)

    keys = jax.random.split(jax.random.key(3), (512, 16))
    samples = np.mean(np.asarray(jax.jit(jax.vmap(samples_of))(moved[0], keys)), axis=1)
    assert abs(np.mean(samples) - expected) < 5 * np.std(samples) / np.sqrt(512) + 0.1
