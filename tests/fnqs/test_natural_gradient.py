"""minSR and SPRING against closed forms, the dense formula and literal loops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from fnqs.errors import InputError
from fnqs.optimisation.jacobian import gram_matrix
from fnqs.optimisation.natural_gradient import (
    SHARED,
    SpringState,
    centre_per_configuration,
    clip_local_energies,
    spread_weights,
    spring,
)

PARAMS = {"a": jnp.zeros((2, 3), jnp.float64), "b": jnp.zeros(4, jnp.float64)}


def take(optimizer, rows, energies, state=None, params=PARAMS) -> tuple[Any, SpringState]:
    """One update of the optimizer, from its first state if none is given."""
    state = optimizer.init(params) if state is None else state
    return optimizer.update(params, state, params, jacobian=rows, residual=energies)


def problem(seed=0, configurations=2, samples=8, dtype: Any = np.float64):
    """Random centred rows (K n, 10) and residuals (K n,)."""
    generator = np.random.default_rng(seed)
    rows = centre_per_configuration(jnp.asarray(generator.normal(size=(configurations, samples, 10)), dtype))
    energies = centre_per_configuration(jnp.asarray(generator.normal(size=(configurations, samples)), dtype))
    return rows, energies


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def dense_direction(rows, energies, damping, momentum=0.0, last: Any = 0.0):
    """The same direction from the P x P matrix of parameter space, in float64."""
    rows, energies = np.asarray(rows, np.float64), np.asarray(energies, np.float64)
    matrix = rows.T @ rows + damping * np.eye(rows.shape[1])
    return np.linalg.solve(matrix, rows.T @ (energies - momentum * (rows @ (last + np.zeros(10))))) + momentum * last


def test_equals_the_dense_formula():
    rows, energies = problem()
    optimizer = spring(0.1, damping=1e-3, momentum=0.0)
    updates, state = take(optimizer, rows, energies)
    # float64 rounding (1e-16) times the condition number, about 1 / damping
    np.testing.assert_allclose(flat(updates), -0.1 * dense_direction(rows, energies, 1e-3), rtol=1e-11, atol=1e-13)
    assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)
    assert not state.fallback
    exact = np.linalg.cond(np.asarray(rows @ rows.T) + 1e-3 * np.eye(len(rows)))
    assert 1 < float(state.condition) <= exact * 1.01


def test_float32_rows_stay_close_to_the_dense_formula():
    rows, energies = problem(dtype=np.float32)
    params = jax.tree.map(lambda x: x.astype(jnp.float32), PARAMS)
    optimizer = spring(1.0, damping=1e-3, momentum=0.0)
    updates, _ = take(optimizer, rows, energies, params=params)
    expected = -dense_direction(rows, energies, 1e-3)
    # rounding of the Gram matrix, 1e-7, over the damping, 1e-3
    np.testing.assert_allclose(flat(updates), expected, atol=1e-4 * np.abs(expected).max())
    assert flat(updates).dtype == np.float32


def test_gaussian_wave_function_in_closed_form():
    # psi = exp(-a x^2 / 2) in the harmonic oscillator: E_L = a/2 + (1 - a^2) x^2 / 2 and O = -x^2 / 2, so
    # epsilon = -(1 - a^2) O exactly, and without damping delta = -(1 - a^2): a grows by eta (1 - a^2).
    a = 0.6
    x = np.random.default_rng(1).normal(size=(3, 50)) / np.sqrt(2 * a)
    rows = centre_per_configuration(jnp.asarray(-(x**2) / 2)[..., None])
    energies = centre_per_configuration(jnp.asarray(a / 2 + (1 - a**2) * x**2 / 2))
    params = {"a": jnp.asarray([a])}
    optimizer = spring(0.5, damping=1e-9, momentum=0.0)
    updates, _ = take(optimizer, rows, energies, params=params)
    # relative change by the damping: 1e-9 over the variance of O, 0.7
    np.testing.assert_allclose(flat(updates), 0.5 * (1 - a**2), rtol=1e-8)


def test_momentum_follows_the_recursion():
    def schedule(count):
        return 0.1 / (1 + jnp.asarray(count, jnp.float64))

    optimizer = spring(schedule, damping=0.01, momentum=0.9)
    state, last = None, np.zeros(10)
    for step in range(5):
        rows, energies = problem(seed=step)
        updates, state = take(optimizer, rows, energies, state)
        last = dense_direction(rows, energies, 0.01, 0.9, last)
        # float64 rounding times the condition number, about 1 / damping
        np.testing.assert_allclose(flat(updates), -0.1 / (1 + step) * last, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(state.delta, last, rtol=1e-11, atol=1e-14)
    assert state is not None
    assert int(state.count) == 5


def test_order_of_the_samples_does_not_matter():
    rows, energies = problem()
    order = np.random.default_rng(2).permutation(len(rows))
    optimizer = spring(1.0, momentum=0.5)
    state = take(optimizer, rows, energies)[1]._replace(delta=jnp.arange(10.0))
    one, _ = take(optimizer, rows, energies, state)
    other, _ = take(optimizer, rows[order], energies[order], state)
    np.testing.assert_allclose(flat(one), flat(other), rtol=1e-10, atol=1e-12)  # float64 rounding / damping


def test_the_constant_of_the_spring_paper_changes_nothing():
    rows, energies = problem(configurations=1)
    optimizer = spring(1.0, damping=1e-3, momentum=0.0)
    updates, _ = take(optimizer, rows, energies)
    gram = np.asarray(rows @ rows.T)
    gram = gram + np.full_like(gram, 1 / len(gram)) + 1e-3 * np.eye(len(gram))
    expected = -np.asarray(rows).T @ np.linalg.solve(gram, np.asarray(energies))
    np.testing.assert_allclose(flat(updates), expected, rtol=1e-10, atol=1e-12)  # float64 rounding / damping


def test_max_norm_shortens_the_update_but_not_the_memory():
    rows, energies = problem()
    free, limited = spring(0.1, momentum=0.9), spring(0.1, momentum=0.9, max_norm=0.01)
    long, _ = take(free, rows, energies)
    short, state = take(limited, rows, energies)
    assert np.linalg.norm(flat(long)) > 0.1 * 0.01
    assert np.linalg.norm(flat(short)) == pytest.approx(0.1 * 0.01, rel=1e-12)
    np.testing.assert_allclose(flat(long), -0.1 * state.delta, rtol=1e-12)
    loose = spring(0.1, momentum=0.9, max_norm=1e6)
    same, _ = take(loose, rows, energies)
    np.testing.assert_array_equal(flat(same), flat(long))


def test_rounding_of_many_rows_needs_no_larger_damping():
    # One direction of length 1e3 in float32: a Gram matrix in float32 would be wrong by about 0.1, above the damping.
    generator = np.random.default_rng(3)
    rows = 1e3 * generator.normal(size=(1, 40, 1)) * np.ones(10) + generator.normal(size=(1, 40, 10))
    rows = centre_per_configuration(jnp.asarray(rows, jnp.float32))
    energies = centre_per_configuration(jnp.asarray(generator.normal(size=(1, 40)), jnp.float32))
    gram = np.asarray(rows @ rows.T, np.float64)
    assert np.linalg.eigvalsh(gram)[0] < -1e-6, "the matrix of this test must not be positive definite in float32"
    updates, state = take(spring(1.0, damping=1e-6, momentum=0.0), rows, energies)
    assert not bool(state.fallback)
    # float64 rounding, 1e-16 times the largest eigenvalue, 1e7, over the damping; the parameters are float64 here
    expected = -dense_direction(rows, energies, 1e-6)
    np.testing.assert_allclose(flat(updates), expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize(("number", "columns"), [(3, 5), (300, 4096), (700, 4100), (1030, 9000)])
def test_gram_matrix_by_blocks(number, columns):
    rows = np.random.default_rng(8).normal(size=(number, columns)).astype(np.float32)
    exact = rows.astype(np.float64) @ rows.T.astype(np.float64)
    found = np.asarray(jax.jit(gram_matrix)(jnp.asarray(rows)))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, exact, atol=1e-9)  # rounding of sums of 9,000 numbers
    np.testing.assert_array_equal(found, found.T)


class Indefinite:
    """Two rows that are the parameters themselves, and a Gram matrix that is none: an eigenvalue of -50."""

    dtype = jnp.dtype(jnp.float64)

    def gram_and_times(self, vector):
        return jnp.diag(jnp.asarray([1.0, -50.0])), vector

    def transposed_times(self, vector):
        return vector


def test_damping_grows_until_the_factorisation_succeeds():
    """However wrong the Gram matrix is: this one needs three more attempts than the second."""
    updates, state = take(spring(1.0, momentum=0.0), Indefinite(), jnp.asarray([101.0, 50.0]), params=jnp.zeros(2))
    assert bool(state.fallback)
    np.testing.assert_allclose(updates, [-1.0, -1.0], rtol=1e-12)  # damping 100


def test_nan_in_the_rows_is_not_hidden():
    rows, energies = problem()
    optimizer = spring(1.0)
    updates, state = take(optimizer, rows.at[0, 0].set(jnp.nan), energies)
    assert bool(state.fallback)
    assert np.all(np.isnan(flat(updates)))


def test_jit_and_chain():
    rows, energies = problem()
    plain = spring(0.1)
    chained = optax.chain(plain, optax.scale(0.5))

    @jax.jit
    def step(params, state):
        updates, state = chained.update(params, state, params, jacobian=rows, residual=energies)
        return optax.apply_updates(params, updates), state

    params, _ = step(PARAMS, chained.init(PARAMS))
    updates, _ = take(plain, rows, energies)
    np.testing.assert_allclose(flat(params), 0.5 * flat(updates), rtol=1e-10, atol=1e-12)  # rounding / damping


@pytest.mark.parametrize("settings", [{"damping": 0.0}, {"momentum": 1.0}, {"momentum": -0.1}, {"max_norm": 0.0}])
def test_refuses_settings_out_of_range(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        spring(0.1, **settings)


def test_centring_of_two_configurations_is_that_of_each_alone():
    values = jnp.asarray(np.random.default_rng(4).normal(size=(2, 6, 3))) + jnp.asarray([[[0.0]], [[100.0]]])
    together = centre_per_configuration(values)
    alone = [centre_per_configuration(values[k : k + 1]) for k in range(2)]
    np.testing.assert_allclose(together, np.concatenate(alone) / np.sqrt(2), atol=1e-13)  # rounding of 100
    np.testing.assert_allclose(np.sum(np.asarray(together).reshape(2, 6, 3), 1), 0, atol=1e-12)


def test_clipping_uses_each_configurations_own_median():
    quiet = np.array([-1.0, -0.9, -1.1, -1.0, -1.05])
    energies = jnp.asarray(np.stack([np.append(quiet, 50.0), np.append(quiet - 30, -30.0)]))
    clipped = np.asarray(clip_local_energies(energies, width=1.0))
    deviation = np.mean(np.abs(np.append(quiet, 50.0) + 1.0))
    np.testing.assert_array_equal(clipped[0, :5], quiet)
    assert clipped[0, 5] == pytest.approx(-1.0 + deviation)
    np.testing.assert_allclose(clip_local_energies(energies, width=1e3), energies)
    rotated = clip_local_energies(jax.lax.complex(energies, -energies), width=1.0)
    np.testing.assert_array_equal(np.real(rotated), clipped)
    np.testing.assert_array_equal(np.imag(rotated), -clipped)


def test_weights_make_spreads_alike():
    generator = np.random.default_rng(3)
    scales = np.array([0.1, 1.0, 2.0])
    energies = jnp.asarray(scales[:, None] * generator.normal(size=(3, 400)) - 5.0)
    weights = np.asarray(spread_weights(energies, jnp.ones(3, bool)))
    spreads = np.mean(np.abs(energies - np.median(energies, axis=1, keepdims=True)), axis=1)
    mean = spreads.mean()
    np.testing.assert_allclose(weights, mean / np.sqrt(0.9 * spreads**2 + 0.1 * mean**2), rtol=1e-12)
    assert np.ptp(weights[1:] * scales[1:]) < 0.15 * np.mean(weights[1:] * scales[1:])
    # in any unit, and wherever zero is
    np.testing.assert_allclose(spread_weights(27.2 * energies + 3.0, jnp.ones(3, bool)), weights, rtol=1e-12)


def test_weights_ignore_what_is_not_finite():
    energies = jnp.asarray(np.random.default_rng(4).normal(size=(3, 50)))
    spoilt = energies.at[1].set(0.0)  # what a step puts in the place of energies that are not finite
    finite = jnp.array([True, False, True])
    weights = np.asarray(spread_weights(spoilt, finite))
    alone = np.asarray(spread_weights(energies[::2], jnp.ones(2, bool)))
    np.testing.assert_allclose(weights[::2], alone, rtol=1e-12)
    assert np.isfinite(weights).all()
    assert weights.max() <= SHARED**-0.5 * (1 + 1e-12)
    assert np.array_equal(spread_weights(jnp.zeros((2, 4)), jnp.ones(2, bool)), [1.0, 1.0])
