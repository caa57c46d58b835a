import numpy as np
import pytest

from fnqs_eval.energies.statistics import mended, reblocked_error, v_score


def autoregressive(rng, correlation, steps, walkers):
    """AR(1) with unit variance: rho(t) = correlation^t, tau = (1 + c) / 2(1 - c)."""
    values = np.empty((steps, walkers))
    values[0] = rng.normal(size=walkers)
    kicks = rng.normal(size=(steps, walkers)) * np.sqrt(1 - correlation**2)
    for t in range(1, steps):
        values[t] = correlation * values[t - 1] + kicks[t]
    return values


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
@pytest.mark.parametrize(("steps", "walkers"), [(20000, 1), (2000, 32)])
def test_known_autocorrelation_times(correlation, steps, walkers):
    estimate = reblocked_error(autoregressive(np.random.default_rng(1), correlation, steps, walkers))
    tau = (1 + correlation) / (2 * (1 - correlation))
    error = np.sqrt(2 * tau / (steps * walkers))
    assert estimate.converged
    # The error is known to error_of_error, tau to twice that relatively; blocking leaves about tau / B of
    # bias, of the same size by the choice of B: four of them together.
    relative = estimate.error_of_error / estimate.error
    assert relative < 0.12
    assert abs(estimate.error / error - 1) < 4 * relative
    assert abs(estimate.autocorrelation_time / tau - 1) < 8 * relative
    assert estimate.effective_samples == pytest.approx(steps * walkers / (2 * estimate.autocorrelation_time))
    assert abs(estimate.mean) < 4 * error


def test_error_bars_cover():
    """68 percent lie within one error; 300 trials know that to 2.7 points, four times that is allowed."""
    rng = np.random.default_rng(2)
    within = 0
    for _ in range(300):
        estimate = reblocked_error(autoregressive(rng, 0.8, 512, 8))
        within += abs(estimate.mean) < estimate.error
    assert abs(within / 300 - 0.683) < 4 * 0.027


def test_error_of_error_is_the_spread_of_errors():
    rng = np.random.default_rng(3)
    estimates = [reblocked_error(rng.normal(size=(256, 4))) for _ in range(300)]
    spread = np.std([e.error for e in estimates])
    claimed = np.mean([e.error_of_error for e in estimates])
    # The block length varies between runs and with it the claim: agreement within a third.
    assert abs(claimed / spread - 1) < 1 / 3


def test_one_dimension_is_one_walker():
    series = np.random.default_rng(4).normal(size=1000)
    assert reblocked_error(series) == reblocked_error(series[:, None])


def test_a_series_shorter_than_its_correlations():
    rng = np.random.default_rng(5)
    few = reblocked_error(autoregressive(rng, 0.99, 100, 2))
    assert not few.converged
    many = reblocked_error(autoregressive(rng, 0.99, 64, 400))
    # 400 independent chains: their own spread is the error, known to 1/sqrt(800) = 3.5 percent; 4 times that.
    assert many.converged
    lags = np.arange(1, 64)
    variance = (1 + 2 * np.sum((1 - lags / 64) * 0.99**lags)) / (64 * 400)
    assert many.error == pytest.approx(np.sqrt(variance), rel=0.14)


def test_walkers_seen_once():
    values = np.random.default_rng(6).normal(size=(1, 100))
    estimate = reblocked_error(values)
    assert estimate.converged
    assert estimate.error == pytest.approx(np.std(values, ddof=1) / 10, rel=1e-12)  # rounding of float64


def test_constant_series_and_useless_ones():
    assert reblocked_error(np.full((8, 4), -0.5)).error == 0
    for bad in (np.array([1.0]), np.array([1.0, np.nan]), np.zeros((2, 2, 2)), np.array([1j, 2j])):
        with pytest.raises(ValueError, match="real finite samples"):
            reblocked_error(bad)


def test_v_score():
    assert v_score(energy=-4.0, variance=0.5, n_electrons=8) == 0.25


def test_a_number_that_is_not_finite_is_left_out_without_its_walker():
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(40, 8))
    spoilt = whole.copy()
    spoilt[3, 1], spoilt[7, 1], spoilt[9, 4] = np.nan, np.inf, -np.inf
    spoilt[:25, 6] = np.nan
    found = mended(spoilt)
    assert (found.lost, found.walkers) == (3, 1)
    assert found.energies.shape == (40, 7)
    kept = np.delete(whole, 6, axis=1)
    changed = np.zeros((40, 7), bool)
    changed[[3, 7, 9], [1, 1, 4]] = True
    np.testing.assert_array_equal(found.energies[~changed], kept[~changed])
    # The mean changes by less than the bound, which counts the numbers left out as far off as the farthest other.
    assert abs(found.energies.mean() - kept.mean()) < found.bias
    assert found.bias == pytest.approx(3 / 280 * np.abs(found.energies - found.energies.mean()).max(), rel=1e-12)
    assert mended(whole).lost == 0
    np.testing.assert_array_equal(mended(whole).energies, whole)
    assert mended(np.full((4, 3), np.nan)).energies.size == 0
