"""Parameter derivatives of log psi against jax.grad of the composed function and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from fnqs.optimisation.log_derivatives import log_derivatives
from fnqs.system import stack_systems

GAMMA = (0.0, 0.0, 0.0)
GENERAL = (0.13, -0.21, 0.4)
ROUNDING = 1e-9
"""Relative to the largest entry: float64 with the overlap's floor magnifying 1e-15 by up to 1e5."""

real_and_complex = pytest.mark.parametrize("twist", [GAMMA, GENERAL])


def two_cases(model, twist):
    """Two systems and (2, 4, 4, 3) walkers."""
    cases = [model.case(4, twist, seed=seed) for seed in (0, 1)]
    noise = 0.2 * jax.random.normal(jax.random.key(0), (2, 4, 4, 3), jnp.float64)
    return cases, jnp.stack([case.electrons for case in cases])[:, None] + noise


@pytest.fixture(scope="module")
def rows(model, compiled):
    """Compiled log_derivatives of (params, systems, walkers), two walkers at a time."""
    return compiled(lambda *arguments: log_derivatives(model.wavefunction, *arguments, 2))


@pytest.fixture(scope="module")
def composed(model):
    """Function (params, system, walkers (n, N, 3)) giving real and imaginary parts (n, 2) of log psi."""

    def function(params, system, walkers):
        context = model.wavefunction.encode(params, system)
        return jax.vmap(model.complex_log_psi, (None, None, 0))(params, context, walkers)

    return function


@real_and_complex
def test_equals_the_gradient_of_the_composed_function(model, compiled, rows, composed, twist):
    cases, walkers = two_cases(model, twist)
    systems = stack_systems([case.system for case in cases])
    found = rows(model.params, systems, walkers)
    flat, unravel = ravel_pytree(model.params)
    jacobian = compiled(jax.jacrev(lambda p, s, r: composed(unravel(p), s, r)))
    for k, case in enumerate(cases):
        expected = np.asarray(jacobian(flat, case.system, walkers[k]))
        expected = expected if any(twist) else expected[:, 0]
        assert found[k].shape == expected.shape
        np.testing.assert_allclose(found[k], expected, atol=ROUNDING * np.abs(expected).max())


@real_and_complex
def test_equals_finite_differences(model, compiled, rows, composed, twist):
    """Along random directions in all parameters, up to a constant per configuration, which centring removes.

    At a general twist both spins fill the lowest levels and the derivative is that of a cold Fermi function:
    the temperature is lowered until the two agree.
    """
    cases, walkers = two_cases(model, twist)
    params = jax.tree.map(lambda leaf: leaf, model.params)
    params["encoder"]["sharpness_head"]["bias"] = jnp.full_like(params["encoder"]["sharpness_head"]["bias"], 3.0)
    systems = stack_systems([case.system for case in cases])
    found_rows = rows(params, systems, walkers)
    table = np.asarray(found_rows).reshape(2, 4, -1, found_rows.shape[-1])
    flat, unravel = ravel_pytree(params)
    evaluate = compiled(composed)
    step = 2e-5
    for seed in range(3):
        direction = jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype) / jnp.sqrt(len(flat))
        for k, case in enumerate(cases):
            ends = [evaluate(unravel(flat + sign * step * direction), case.system, walkers[k]) for sign in (1, -1)]
            difference = np.array(ends[0] - ends[1])[:, : table.shape[2]]
            difference[:, 1:] = np.angle(np.exp(1j * difference[:, 1:]))
            expected, found = difference / (2 * step), table[k] @ np.asarray(direction)
            expected, found = expected - expected.mean(0), found - found.mean(0)
            assert np.abs(expected).max() > 1e-2
            # The third derivative, up to 10^4 where a walker is near a node, times step^2 / 6.
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_order_of_the_parameters(model, compiled, rows):
    """Rows follow ravel_pytree of the parameters, so that an update can be unravelled."""
    cases, walkers = two_cases(model, GAMMA)
    systems = stack_systems([case.system for case in cases])
    found_rows = rows(model.params, systems, walkers)
    _, unravel = ravel_pytree(model.params)
    gradient = unravel(found_rows[0, 0])["amplitude"]["pairs"]["log_rates"]

    def log_psi(rates):
        amplitude = {**model.params["amplitude"], "pairs": {"log_rates": rates}}
        return model.wavefunction.log_psi({"amplitude": amplitude}, cases[0].context, walkers[0, 0])[1]

    expected = compiled(jax.grad(log_psi))(model.params["amplitude"]["pairs"]["log_rates"])
    np.testing.assert_allclose(gradient, expected, rtol=1e-9)  # rounding
