"""Where local moments point: alternating, of zero sum, following their protons smoothly, chosen by no rounding."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.ansatz.local_moments import moment_pattern
from fnqs_data.generate.crystals import lattice

GRID = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3, indexing="ij"), -1).reshape(-1, 3)
CELL = 3.2 * np.diag([2.0, 2.0, 2.0])


def crystal(phase: str, number: int, r_s: float, repeats=None):
    return (np.asarray(part) * r_s * (4 * np.pi / 3) ** (1 / 3) for part in lattice(phase, number, repeats)[0])


def test_neighbours_take_opposite_moments():
    cell, protons = crystal("bcc", 16, 2.66, (2, 2, 2))
    pattern = moment_pattern(cell, protons)
    half = np.linalg.norm(cell[0]) / 4  # half a conventional cell
    corner = np.all(np.round(protons / half) % 2 == 0, axis=1)
    assert corner.sum() == 8
    np.testing.assert_allclose(pattern[corner], pattern[corner][0], atol=1e-9)
    np.testing.assert_allclose(pattern[~corner], -pattern[corner][0], atol=1e-9)
    assert abs(pattern[0]) > 0.9


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_moments_sum_to_zero_follow_their_protons_and_change_smoothly(seed):
    generator = np.random.default_rng(seed)
    protons = 3.2 * GRID + 0.6 * generator.normal(size=(8, 3))
    pattern = moment_pattern(CELL, protons)
    assert abs(pattern.sum()) < 1e-9
    order = generator.permutation(8)
    other = moment_pattern(CELL, protons[order] + np.array([0.3, -0.2, 0.1]) + CELL[1] * (np.arange(8) % 2)[:, None])
    np.testing.assert_allclose(other * np.sign(other @ pattern[order]), pattern[order], atol=1e-7)
    moved = moment_pattern(CELL, protons + 1e-8 * generator.normal(size=(8, 3)))
    np.testing.assert_allclose(moved * np.sign(moved @ pattern), pattern, atol=1e-5)


def test_frustrated_patterns_are_chosen_by_a_field():
    """In fcc three patterns are equal by symmetry; moving protons by 1e-9 bohr chooses no other."""
    cell, protons = crystal("fcc", 8, 1.6)
    noise = 1e-9 * np.random.default_rng(0).normal(size=protons.shape)
    one, other = moment_pattern(cell, protons), moment_pattern(cell, protons + noise)
    np.testing.assert_allclose(other * np.sign(other @ one), one, atol=1e-5)
