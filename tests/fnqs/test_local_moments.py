"""Where local moments point: alternating, of zero sum, following their protons smoothly, chosen by no rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.ansatz.orbital_basis import make_orbital_basis, orbitals_per_proton
from fnqs.configuration import make_configuration
from fnqs.model_config import ModelConfig
from fnqs_data.generate.crystals import lattice

CONFIG = ModelConfig(s_exponents=(1.0, 0.3), p_exponents=(), antisymmetric="moments")
GRID = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3, indexing="ij"), -1).reshape(-1, 3)
CELL = 3.2 * np.diag([2.0, 2.0, 2.0])


def crystal(phase: str, number: int, r_s: float, repeats=None):
    return (np.asarray(part) * r_s * (4 * np.pi / 3) ** (1 / 3) for part in lattice(phase, number, repeats)[0])


def patterns(cell, protons, twist=(0.0, 0.0, 0.0), config=CONFIG):
    """Moments (2, N) of the protons and weights (2,)."""
    basis = make_orbital_basis(make_configuration(cell, protons, twist), config)
    return np.asarray(basis.moments)[:, :: orbitals_per_proton(config)], np.asarray(basis.moment_weights)


def of_pairs(moments, weights):
    """What psi depends on (N, N): products of moments, whatever their common sign and the order of the patterns."""
    return np.einsum("p,pi,pj->ij", weights, moments, moments)


def test_neighbours_take_opposite_moments():
    cell, protons = crystal("sc", 8, 1.6)
    moments, weights = patterns(cell, protons)
    assert weights[0] == pytest.approx(1, abs=1e-3)
    parity = (-1) ** np.round(np.sum(protons, axis=1) / (cell[0, 0] / 2))
    np.testing.assert_allclose(moments[0] * np.sign(moments[0, 0] * parity[0]), 0.964 * parity, atol=1e-3)


def test_images_of_a_neighbour_add_up_before_they_are_squared():
    """Second neighbours in bcc of N = 16: two images in phase at Gamma, and of opposite sign at this twist."""
    cell, protons = crystal("bcc", 16, 2.6588, (2, 2, 2))  # Hartree-Fock has the same order, magnetic_orders.py
    config = ModelConfig(antisymmetric="moments")
    half = cell[0, 0] / 4  # of a conventional cell
    steps = np.round(protons / half).astype(int)
    corner = np.all(steps % 2 == 0, axis=1)
    second = (-1) ** np.sum(steps // 2, axis=1)
    moments, weights = patterns(cell, protons, config=config)
    np.testing.assert_allclose(weights, 0.5, atol=1e-6)
    expected = [np.sign(moments[0, 0] * second[0]) * second, np.sign(moments[1, 0] * second[0]) * second]
    for found, sites in zip(moments, expected, strict=True):
        relative = np.sign(found[~corner][0] * sites[~corner][0])
        np.testing.assert_allclose(found, 0.964 * sites * np.where(corner, 1, relative), atol=1e-3)
    assert np.sum(moments[0] * moments[1]) == pytest.approx(0, abs=1e-6)
    moments, weights = patterns(cell, protons, (0.5, 0.5, 0.5), config)
    assert weights[0] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(
        moments[0] * np.sign(moments[0, 0]), np.where(corner == corner[0], 0.964, -0.964), atol=1e-3
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_moments_sum_to_zero_follow_their_protons_and_change_smoothly(seed):
    generator = np.random.default_rng(seed)
    protons = 3.2 * GRID + 0.4 * generator.normal(size=(8, 3))
    moments, weights = patterns(CELL, protons)
    assert abs(moments.sum(axis=1)).max() < 1e-9
    assert weights.sum() == pytest.approx(1)
    here, order = of_pairs(moments, weights), generator.permutation(8)
    turned, moved = here[np.ix_(order, order)], protons[order] + CELL[1] * (np.arange(8) % 2)[:, None]
    np.testing.assert_allclose(of_pairs(*patterns(CELL, moved)), turned, atol=1e-6)
    # The Hamiltonian is integrated on a grid that stays where it is.
    np.testing.assert_allclose(of_pairs(*patterns(CELL, moved + np.array([0.3, -0.2, 0.1]))), turned, atol=1e-3)
    near = of_pairs(*patterns(CELL, protons + 1e-8 * generator.normal(size=(8, 3))))
    np.testing.assert_allclose(near, here, atol=1e-5)


@pytest.mark.parametrize(("phase", "number", "repeats"), [("fcc", 8, None), ("bcc", 8, None), ("bcc", 16, (2, 2, 2))])
def test_equal_patterns_are_chosen_by_a_field_or_count_both(phase, number, repeats):
    """Moving the protons of a crystal by 1e-9 bohr chooses no other patterns."""
    cell, protons = crystal(phase, number, 1.6, repeats)
    noise = 1e-9 * np.random.default_rng(0).normal(size=protons.shape)
    np.testing.assert_allclose(
        of_pairs(*patterns(cell, protons)), of_pairs(*patterns(cell, protons + noise)), atol=1e-5
    )
