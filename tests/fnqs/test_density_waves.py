"""The density waves of the Jastrow factor: derivatives, supercells, and cells that change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.ansatz.density_waves import EXPONENTS, log_wave_factor, make_waves, number_of_waves, wave_factor
from fnqs.configuration import make_configuration

ORBITALS = len(EXPONENTS)


def _factor(configuration, seed=0, per_proton=True):
    """Factor with random coefficients, equal for all protons or not."""
    rng = np.random.default_rng(seed)
    number = len(configuration.protons)
    protons = rng.normal(size=(number if per_proton else 1, ORBITALS)) * np.ones((number, 1))
    lists = make_waves(configuration, configuration.cell)
    return wave_factor(lists, jnp.asarray(configuration.protons), protons, rng.normal(size=(2, ORBITALS)))


def _configuration(number=4, seed=0):
    rng = np.random.default_rng(seed)
    cell = 4 * np.eye(3) + rng.uniform(-0.6, 0.6, (3, 3))
    places = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]])[:number] / 2
    return make_configuration(cell, places @ cell)


def test_jet_agrees_with_automatic_differentiation():
    configuration = _configuration()
    factor = _factor(configuration)
    electrons = jnp.asarray(np.random.default_rng(1).uniform(0, 4, (4, 3)))

    def flat(x):
        return log_wave_factor(factor, x.reshape(4, 3), False)

    jet = log_wave_factor(factor, electrons, True)
    # Closed forms in float64: rounding only.
    np.testing.assert_allclose(jet.value, flat(electrons.ravel()), rtol=1e-13)
    np.testing.assert_allclose(jet.jacobian, jax.grad(flat)(electrons.ravel()), atol=1e-11)
    np.testing.assert_allclose(jet.laplacian, jnp.trace(jax.hessian(flat)(electrons.ravel())), rtol=1e-11)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), axis=st.integers(0, 2))
def test_supercell_has_the_factor_of_its_cells(seed, axis):
    """Twice as many of everything, and no new wave is excited: twice the logarithm, whatever the cell."""
    small = _configuration(seed=seed)
    shift = small.cell[axis]
    stretch = np.ones((3, 1))
    stretch[axis] = 2
    large = make_configuration(small.cell * stretch, np.concatenate([small.protons, small.protons + shift]))
    electrons = np.random.default_rng(seed).uniform(0, 4, (4, 3))
    up, down = electrons[:2], electrons[2:]
    copies = np.concatenate([up, up + shift, down, down + shift])
    one = log_wave_factor(_factor(small, per_proton=False), jnp.asarray(electrons), False)
    two = log_wave_factor(_factor(large, per_proton=False), jnp.asarray(copies), False)
    # Both lists hold every wave below the cutoff; what is left is rounding.
    np.testing.assert_allclose(two, 2 * one, rtol=1e-9, atol=1e-9)


def test_isotropic_functions_do_not_see_how_the_cell_is_turned():
    configuration = _configuration()
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    turned = make_configuration(configuration.cell @ turn, configuration.protons @ turn)
    electrons = np.random.default_rng(4).uniform(0, 4, (4, 3))
    first = log_wave_factor(_factor(configuration), jnp.asarray(electrons), False)
    second = log_wave_factor(_factor(turned), jnp.asarray(electrons @ turn), False)
    np.testing.assert_allclose(first, second, rtol=1e-10)


def test_no_jump_where_waves_cross_the_cutoff():
    """Second differences of the factor along a strain stay of the size of the first half step's."""
    base = _configuration()
    electrons = np.random.default_rng(5).uniform(0, 4, (4, 3))
    values = []
    for strain in np.linspace(-0.1, 0.1, 401):
        stretch = np.diag([1 + strain, 1 / (1 + strain), 1.0])
        strained = make_configuration(base.cell @ stretch, base.protons @ stretch)
        values.append(float(log_wave_factor(_factor(strained), jnp.asarray(electrons @ stretch), False)))
    steps = np.abs(np.diff(values))
    # A jump would stand out of the steps of a smooth curve, which change slowly from one to the next.
    assert np.max(np.abs(np.diff(values, 2))) < 0.2 * np.max(steps)


@pytest.mark.parametrize("number", [2, 16, 54])
def test_every_wave_below_the_cutoff_is_listed(number):
    """The last listed wave has fallen to zero: nothing is cut off."""
    edge = (4 * np.pi * number / 3) ** (1 / 3)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)[:number] * edge / 4
    lists = make_waves(make_configuration(edge * np.eye(3), grid), edge * np.eye(3))
    assert lists.vectors.shape == (number_of_waves(number), 3)
    assert np.all(lists.functions[-1] == 0)
    assert np.any(lists.functions[: number * 5] != 0)
