"""Levels that values are compared with."""

import numpy as np
import pytest

from fnqs_train.stability.levels import FEWEST, Levels


def add_all(levels, series, high=5.0):
    """Strikes of quantity 0 after each value of a series."""
    return [int(levels.add(np.array([0]), np.array([value]), high)[0]) for value in series]


def test_the_first_values_give_their_mean_and_scatter():
    levels, values = Levels(3), np.random.default_rng(0).normal(-0.5, 0.1, size=(FEWEST, 2))
    for row in values:
        levels.add(np.array([2, 0]), row, 5.0)
    state = levels.state()
    np.testing.assert_allclose(state["mean"][[2, 0]], values.mean(axis=0), rtol=1e-5)  # float32
    np.testing.assert_allclose(state["square"][[2, 0]], np.mean(np.diff(values, axis=0) ** 2, axis=0) / 2, rtol=1e-5)
    assert state["count"].tolist() == [FEWEST, 0, FEWEST]


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_a_fall_are_no_run_away(seed):
    """The energy of a training falls fast and then slowly; what scatters about that is not too high for long."""
    time = np.arange(1000)
    series = -0.5 + 0.3 * np.exp(-time / 30) + 0.01 * np.random.default_rng(seed).normal(size=1000)
    assert max(add_all(Levels(1), series)) <= 1


@pytest.mark.parametrize("folding", [3, 10, 20])
def test_a_rise_is_noticed_however_slowly_it_begins(folding):
    """A rise that grows by e in so many visits: too high from 15 standard deviations at most, found 4 visits on."""
    time = np.arange(400)
    rise = 1e-4 * np.exp(np.maximum(time - 200, 0) / folding)
    series = -0.5 + rise + 0.001 * np.random.default_rng(1).normal(size=400)
    strikes = np.array(add_all(Levels(1), series))
    found = int(np.argmax(strikes >= 4))
    assert found > 200
    assert rise[found] < 0.015 * np.exp(4 / folding)


def test_single_outliers_leave_the_level_where_it_was():
    rng = np.random.default_rng(2)
    series = 0.01 * rng.normal(size=300)
    series[50::40] = -1e10
    series[70::40] = 1e10
    levels = Levels(1)
    assert max(add_all(levels, series)) <= 1
    assert abs(levels.state()["mean"][0]) < 0.02
    assert levels.state()["square"][0] < 0.02**2


def test_what_is_forgotten_begins_anew():
    levels = Levels(1)
    add_all(levels, 0.01 * np.random.default_rng(3).normal(size=50))
    assert add_all(levels, [1.0, 1.0, 1.0]) == [1, 2, 3]
    levels.forget(np.array([0]))
    assert add_all(levels, 1 + 0.01 * np.random.default_rng(4).normal(size=50)) == [0] * 50
