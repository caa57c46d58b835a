"""Diffusion Monte Carlo where the answer is known: a harmonic oscillator and a fermion pair behind a node."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.sampling.diffusion import Guide, Projection, comb, diffuse, limited_drift, mixed_estimates


def oscillator(exponent: float):
    """Guide exp(-a r^2 / 2) of electrons in the potential r^2 / 2: the ground state, 3/2 Ha each, at a = 1."""

    def guide_of(walkers: jax.Array) -> Guide:
        square = jnp.sum(walkers**2, axis=(1, 2))
        number = walkers.shape[1]
        energy = 1.5 * number * exponent + 0.5 * (1 - exponent**2) * square
        return Guide(jnp.ones(len(walkers)), -0.5 * exponent * square, -exponent * walkers, energy)

    return guide_of


def node(exponent: float):
    """Guide x exp(-a r^2 / 2) of one electron in the same potential: 5/2 Ha with its node."""

    def guide_of(walkers: jax.Array) -> Guide:
        x, square = walkers[:, 0, 0], jnp.sum(walkers**2, axis=(1, 2))
        drift = (-exponent * walkers).at[:, 0, 0].add(1 / x)
        energy = 2.5 * exponent + 0.5 * (1 - exponent**2) * square
        return Guide(jnp.sign(x), jnp.log(jnp.abs(x)) - 0.5 * exponent * square, drift, energy)

    return guide_of


def project(
    guide_of, electrons: int, time_step: float, steps: int, number: int = 400, window=200
) -> tuple[float, float]:
    """Energy (Ha) and error from a population that starts near the guide; the first fifth is left out."""
    walkers = 0.7 * jax.random.normal(jax.random.key(0), (number, electrons, 3), jnp.float64)
    guide = guide_of(walkers)
    state = Projection(walkers, guide, jnp.mean(guide.energy))

    def one(state, key):
        state, moved = diffuse(guide_of, state, key, time_step)
        mixed = 0.95 * state.trial_energy + 0.05 * moved.energy
        state = Projection(state.walkers, state.guide, mixed)
        return state, (moved.energy, moved.log_weight)

    _, (energies, logs) = jax.jit(lambda s: jax.lax.scan(one, s, jax.random.split(jax.random.key(1), steps)))(state)
    energies, weights = map(np.asarray, mixed_estimates(energies[steps // 5 :], logs[steps // 5 :], window=window))
    whole = len(energies) // 40 * 40
    energies, weights = (x[:whole].reshape(40, -1) for x in (energies, weights))
    blocks = np.sum(energies * weights, axis=1) / np.sum(weights, axis=1)
    return float(blocks.mean()), float(blocks.std(ddof=1) / np.sqrt(40))


@pytest.mark.parametrize("electrons", [1, 3])
def test_projects_the_ground_state_of_a_poor_guide(electrons):
    energy, error = project(oscillator(0.6), electrons, 0.02, 4000)
    variational = electrons * 0.75 * (0.6 + 1 / 0.6)
    # time step and population change it by less than 0.01 Ha, a tenth of what the guide is too high by
    assert abs(energy - 1.5 * electrons) < 4 * error + 0.01 * electrons
    assert variational - energy > 0.15 * electrons


def test_few_walkers_have_a_bias_that_the_carried_weights_take_away():
    short, _ = project(oscillator(0.5), 2, 0.02, 20000, number=6, window=0)
    carried, error = project(oscillator(0.5), 2, 0.02, 20000, number=6, window=200)
    assert short - 3.0 > 0.05
    assert abs(carried - 3.0) < 4 * error + 0.02


def test_a_node_is_kept():
    energy, error = project(node(0.7), 1, 0.01, 6000)
    assert abs(energy - 2.5) < 4 * error + 0.02


def test_the_exact_guide_has_no_weights():
    guide_of = oscillator(1.0)
    walkers = jax.random.normal(jax.random.key(0), (16, 2, 3), jnp.float64)
    guide = guide_of(walkers)
    _, moved = diffuse(guide_of, Projection(walkers, guide, jnp.asarray(3.0)), jax.random.key(2), 0.01)
    assert float(moved.energy) == pytest.approx(3.0, abs=1e-12)
    assert float(moved.log_weight) / 3.0 == pytest.approx(-0.01, rel=0.1)  # -tau E, less what was not accepted


def test_comb_keeps_equal_weights_and_expected_numbers():
    same = comb(jnp.ones(7), jax.random.key(3))
    np.testing.assert_array_equal(same, np.arange(7))
    weights = jnp.asarray([0.1, 2.0, 0.4, 1.5])
    counts = np.zeros(4)
    for key in jax.random.split(jax.random.key(4), 500):
        counts += np.bincount(np.asarray(comb(weights, key)), minlength=4)
    np.testing.assert_allclose(counts / 500, np.asarray(weights), atol=0.1)  # 4 standard deviations of 500 draws


def test_drift_is_limited_where_it_diverges_and_exact_where_it_is_small():
    v = jnp.asarray([[1e-6, 0.0, 0.0], [1e4, 0.0, 0.0]])
    limited = np.asarray(limited_drift(v, 0.01))
    np.testing.assert_allclose(limited[0], v[0], rtol=1e-9)
    assert 0.01 * limited[1, 0] == pytest.approx(np.sqrt(2 * 0.01), rel=0.01)  # tau v tends to sqrt(2 tau)


def test_mean_weights_are_carried_over_a_window():
    energies, logs = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([0.0, 0.3, -0.3])
    found, weights = mixed_estimates(energies, logs, window=2)
    np.testing.assert_array_equal(found, energies)
    np.testing.assert_allclose(weights, np.exp([0.0, 0.3, 0.0]), rtol=1e-12)
