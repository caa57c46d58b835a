"""What a configuration accepts, refuses and reports."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnqs.configuration import (
    SHORTEST_BOND,
    THINNEST_CELL,
    Configuration,
    find_fault,
    fold_twist,
    make_configuration,
    wigner_seitz_radius,
)
from fnqs.errors import InputError

CELL = np.eye(3) * 4.0
PROTONS = np.array([[0.0, 0.0, 0.0], [1.4, 0.0, 0.0]])


def test_makes_float64_arrays_and_folds_the_twist():
    configuration = make_configuration([[4, 0, 0], [0, 4, 0], [0, 0, 4]], PROTONS.tolist(), (0.75, -0.5, 1))
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(configuration))
    np.testing.assert_allclose(configuration.twist, [-0.25, 0.5, 0.0])
    assert find_fault(configuration) is None


def test_is_a_pytree():
    configuration = make_configuration(CELL, PROTONS)
    doubled = jax.tree.map(lambda x: 2 * x, configuration)
    assert isinstance(doubled, Configuration)
    np.testing.assert_array_equal(doubled.cell, 2 * CELL)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"protons": np.zeros((3, 2))}, "shapes"),
        ({"twist": (0, 0)}, "shapes"),
        ({"cell": CELL[:2]}, "shapes"),
        ({"protons": PROTONS * np.nan}, "proton positions contain NaN"),
        ({"cell": np.where(CELL == 0, CELL, np.inf)}, "cell contain"),
        ({"twist": (np.nan, 0, 0)}, "twist contain"),
        ({"protons": np.zeros((0, 3))}, "N = 0"),
        ({"protons": np.diag([0.0, 1, 2])}, "even number"),
        ({"cell": np.zeros((3, 3))}, "no cell"),
        ({"cell": np.array([[4.0, 0, 0], [0, 4, 0], [4, 4, 0]])}, "no cell"),
        ({"cell": np.diag([1.0, 9, 9])}, "too thin"),
        ({"protons": PROTONS * 0.2}, "protons 0 and 1 are 0.280 bohr apart"),
        ({"protons": np.array([[0, 0, 0], [3.9, 0, 0]])}, "0.100 bohr apart"),
        ({"cell": CELL * 0.07, "protons": PROTONS * 0.1}, "closer than"),
    ],
)
def test_refuses_what_makes_no_sense(change, complaint):
    arguments = {"cell": CELL, "protons": PROTONS, "twist": (0, 0, 0)} | change
    with pytest.raises(InputError, match=complaint):
        make_configuration(**arguments)


def test_limits_are_where_they_are_said_to_be():
    close = np.array([[0.0, 0, 0], [SHORTEST_BOND * 1.001, 0, 0]])
    assert make_configuration(CELL, close)
    with pytest.raises(InputError, match="apart"):
        make_configuration(CELL, close * 0.99)
    thin = np.diag([THINNEST_CELL * 1.001, 2, 1 / (2 * THINNEST_CELL)]) * 4
    assert make_configuration(thin, PROTONS * [0.3, 1, 1])
    thin[0] *= 0.98
    with pytest.raises(InputError, match="too thin"):
        make_configuration(thin, PROTONS * [0.3, 1, 1])


def test_a_left_handed_cell_and_protons_outside_are_legal():
    assert make_configuration(CELL[[1, 0, 2]], PROTONS + 100.0)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_folded_twists_are_the_same_phase_in_the_half_open_cell(twist):
    twist = np.array(twist)
    folded = fold_twist(twist)
    assert np.all(folded > -0.5)
    assert np.all(folded <= 0.5)
    difference = twist - folded
    np.testing.assert_allclose(difference, np.round(difference), atol=1e-11)  # values under 1e-12 become zero
    np.testing.assert_allclose(fold_twist(folded), folded, atol=1e-15)


def test_nan_in_a_twist_stays_visible():
    assert np.isnan(fold_twist(np.array([np.nan, 0.0, 0.0]))[0])


def test_density_parameter():
    # A sphere of radius r_s holds one proton's share of the volume.
    configuration = make_configuration(CELL, PROTONS)
    assert float(wigner_seitz_radius(configuration)) == pytest.approx((3 * 32 / (4 * np.pi)) ** (1 / 3))
    batch = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), configuration)
    np.testing.assert_allclose(np.asarray(wigner_seitz_radius(batch))[1], 2 * wigner_seitz_radius(configuration))
    bcc = make_configuration(np.eye(3) * 1.31 * (8 * np.pi / 3) ** (1 / 3), np.array([[0, 0, 0], [1.0, 1, 1]]))
    assert float(wigner_seitz_radius(bcc)) == pytest.approx(1.31)
