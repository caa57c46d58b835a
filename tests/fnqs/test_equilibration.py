"""The verdict on equilibration, for histories whose relaxation is known, and the spin pattern that it rests on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.periodic.smooth_distance import smooth_lattice
from fnqs.sampling.equilibration import FACTOR, History, longest, spin_pattern
from fnqs.sampling.metropolis import (
    CHARGED,
    first_walkers,
    initial_walkers,
    paired,
    with_random_charges,
    with_random_spins,
)

WALKERS, BETWEEN = 64, 20


def relaxed(seed: int, memory_time: float, drift_time: float, most: int = 4000):
    """Verdict when a history first says settled: memory and signal relax in so many sweeps, with noise."""
    rng = np.random.default_rng(seed)
    history = History(1.0)
    for sweeps in range(BETWEEN, most, BETWEEN):
        memory = np.exp(-sweeps / memory_time) + 0.3 * rng.normal(size=WALKERS)
        signal = -0.5 + 0.1 * np.exp(-sweeps / drift_time) + 0.02 * rng.normal(size=WALKERS)
        history.add(BETWEEN, memory, signal)
        if history.verdict().settled:
            return history.verdict()
    return history.verdict()


@pytest.mark.parametrize("memory_time", [5.0, 60.0, 300.0])
def test_sweeps_grow_with_the_memory(memory_time):
    for seed in range(10):
        verdict = relaxed(seed, memory_time, 5.0)
        assert verdict.settled
        # It has fallen below exp(-2) after twice the time of its decay, give or take the noise of 64 walkers, 0.04.
        assert verdict.sweeps >= 0.8 * 2 * FACTOR * memory_time
        assert verdict.sweeps < 2 * FACTOR * memory_time + 40 * BETWEEN
        assert abs(np.exp(-verdict.sweeps / memory_time)) < 0.03


def test_a_drift_of_the_signal_holds_it_up():
    quick, slow = ([relaxed(seed, 5.0, time).sweeps for seed in range(10)] for time in (5.0, 400.0))
    assert np.mean(quick) < 300
    assert np.mean(slow) > 3 * np.mean(quick)


def test_what_never_forgets_never_settles():
    rng = np.random.default_rng(0)
    history = History(1.0)
    for _ in range(100):
        history.add(BETWEEN, 0.5 + 0.3 * rng.normal(size=WALKERS), rng.normal(size=WALKERS))
    verdict = history.verdict()
    assert not verdict.settled
    assert verdict.sweeps == 100 * BETWEEN
    assert verdict.memory == pytest.approx(0.5, abs=0.03)  # 3,200 numbers of spread 0.3: five of their errors
    assert 0 < verdict.memory_error < 0.01


def test_a_few_points_say_nothing_and_a_lost_walker_spoils_nothing():
    history = History(0.8)
    for point in range(40):
        signal = np.random.default_rng(point).normal(size=WALKERS)
        signal[3] = np.nan
        signal[5] = -1e12 * (point % 2)
        history.add(BETWEEN, np.random.default_rng(1000 + point).normal(size=WALKERS), signal)
        if point < 7:
            assert not history.verdict().settled
    verdict = history.verdict()
    assert np.isfinite([verdict.drift, verdict.drift_error]).all()
    assert verdict.drift_error < 1


def test_more_electrons_and_lower_density_are_given_more_sweeps():
    assert longest(2, 1.0) < longest(8, 1.0) < longest(54, 1.0) < longest(54, 2.7)
    assert longest(8, 0.5) == longest(8, 1.0)


def test_the_spin_pattern_counts_electrons_at_their_protons():
    cell = 6.0 * np.eye(3)
    lattice = smooth_lattice(cell)
    protons = jnp.asarray([[0.0, 0, 0], [3, 0, 0], [0, 3, 0], [3, 3, 0]])
    # Two up at the first proton, one of them in the next cell; both down at the last.
    electrons = jnp.asarray([[0.3, 0, 0.2], [6.2, -6, 0], [2.8, 3.1, 0], [3, 3, 0.5]])
    np.testing.assert_array_equal(spin_pattern(lattice, protons, electrons), [2, 0, 0, -2])


def test_first_walkers_have_patterns_of_their_own():
    """Each pair of the first walkers is turned or not: equal places, and both turns equally often."""
    protons = jnp.asarray(np.random.default_rng(0).uniform(0, 8, (6, 3)))
    fixed = initial_walkers(protons, jax.random.key(0), 4000, spread=0.0)
    turned = with_random_spins(fixed, jax.random.key(1))
    np.testing.assert_array_equal(np.sort(turned, axis=1), np.sort(fixed, axis=1))
    share = np.asarray(jnp.all(turned[:, :3] == fixed[:, :3], axis=2)).mean(axis=0)
    np.testing.assert_allclose(share, 0.5, atol=0.032)  # 4,000 draws: 0.008; four of those
    assert first_walkers(protons, jax.random.key(2), 5).shape == (5, 6, 3)


def test_first_walkers_have_charges_of_their_own():
    """Both electrons of a pair near one of its protons, either as often, in CHARGED of all cases; none is lost."""
    protons = paired(2.0 * np.eye(3)[np.array([0, 1, 2, 0])] + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1.0]]))
    number = 10_000
    fixed = initial_walkers(protons, jax.random.key(0), number, spread=0.0)
    walkers = np.asarray(with_random_charges(fixed, paired(protons), jax.random.key(1)))
    near = np.linalg.norm(walkers[:, :, None] - np.asarray(paired(protons)), axis=-1)
    assert near.min(axis=2).max() < 1e-12
    places = near.argmin(axis=2)
    for pair in range(2):
        members = (pair, pair + 2)
        own = places[:, members]
        assert np.isin(own, members).all()
        shares = [np.mean(np.all(own == np.array(state), axis=1)) for state in ((pair, pair), (pair + 2, pair + 2))]
        # Four standard errors of a share of 0.2.
        np.testing.assert_allclose(shares, CHARGED / 2, atol=4 * (0.2 * 0.8 / number) ** 0.5)
        assert np.mean(np.all(own == np.array(members), axis=1)) == pytest.approx(1 - sum(shares))


def test_a_skew_signal_that_is_stationary_is_no_drift():
    """Local energies have a long tail on one side; windows of unequal length must cut it off alike."""
    held_up = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        history = History(1.0)
        for _ in range(8):
            history.add(BETWEEN, 0.3 * rng.normal(size=WALKERS), rng.standard_t(2.2, size=WALKERS).clip(min=-1))
        held_up += not history.verdict().settled
    # Two tests with a chance of 5 % each: 2 of 20 on average, more than 7 once in 1,000.
    assert held_up <= 7
