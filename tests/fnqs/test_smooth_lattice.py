"""Smooth distances: functions of the lattice alone, with its symmetries, and true at short range."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.periodic.smooth_distance import (
    SmoothLattice,
    reduced_cell,
    smooth_lattice,
    smooth_pair,
    squares_over_the_cell,
    wrapped,
)

FCC = 2.0 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
BCC = 2.0 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
HEXAGONAL = np.array([[3.0, 0, 0], [-1.5, 1.5 * np.sqrt(3), 0], [0, 0, 5.0]])


def random_cell(seed, skew=0.2):
    return 4.0 * (np.eye(3) + np.random.default_rng(seed).uniform(-skew, skew, (3, 3)))


def random_vectors(seed):
    """Whole numbers (3, 3) that turn lattice vectors into other ones of the same lattice."""
    generator, numbers = np.random.default_rng(seed), np.eye(3, dtype=int)
    for _ in range(5):
        first, second = generator.choice(3, 2, replace=False)
        numbers[first] += generator.integers(-2, 3) * numbers[second]
    return numbers


def smooth(cell, displacement):
    square, vector = smooth_pair(smooth_lattice(cell), jnp.asarray(displacement))
    return np.asarray(square), np.asarray(vector)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_periodic_odd_and_zero_at_lattice_points_only(seed):
    generator = np.random.default_rng(seed)
    cell, displacement = random_cell(seed), generator.normal(size=(5, 3)) * 3
    square, vector = smooth(cell, displacement)
    shifted = smooth(cell, displacement + generator.integers(-3, 4, (5, 3)) @ cell)
    np.testing.assert_allclose(shifted[0], square, atol=1e-12)  # rounding of phases of about 30
    np.testing.assert_allclose(shifted[1], vector, atol=1e-12)
    mirrored = smooth(cell, -displacement)
    np.testing.assert_allclose(mirrored[0], square, atol=1e-12)
    np.testing.assert_allclose(mirrored[1], -vector, atol=1e-12)
    assert np.all(square > 0)
    for fractions in itertools.product((0, 0.5), repeat=3):
        at_half = smooth(cell, np.array(fractions) @ cell)
        np.testing.assert_allclose(at_half[1], 0, atol=1e-14)
        assert (at_half[0] > 0.1) == any(fractions)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_the_choice_of_lattice_vectors_does_not_matter(seed):
    cell, displacement = random_cell(seed), np.random.default_rng(seed).normal(size=(5, 3)) * 3
    other = random_vectors(seed) @ cell
    for one, two in zip(smooth(cell, displacement), smooth(other, displacement), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-11)  # rounding, magnified by the skewed cell
    np.testing.assert_allclose(
        np.linalg.norm(reduced_cell(cell), axis=1), np.linalg.norm(reduced_cell(other), axis=1), atol=1e-11
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_no_two_vectors_of_the_superbase_make_an_acute_angle(seed):
    base = reduced_cell(random_vectors(seed) @ random_cell(seed, skew=0.4))
    base = np.concatenate([base, -base.sum(axis=0, keepdims=True)])
    products = base @ base.T
    assert np.all(products[~np.eye(4, dtype=bool)] < 1e-9)
    assert np.all(np.diff(np.linalg.norm(base[:3], axis=1)) > -1e-8)


def test_short_displacements_are_their_own():
    cell, displacement = random_cell(1), np.random.default_rng(1).normal(size=(5, 3)) * 1e-3
    square, vector = smooth(cell, displacement)
    # the first corrections are of relative size (2 pi d / L)^2, some 1e-5
    np.testing.assert_allclose(square, np.sum(displacement**2, 1), rtol=1e-4)
    np.testing.assert_allclose(vector, displacement, rtol=0, atol=1e-4 * np.abs(displacement).max())


def test_single_precision_is_precise_for_short_displacements():
    lattice, displacement = smooth_lattice(random_cell(4)), np.random.default_rng(4).normal(size=(20, 3)) * 1e-2
    exact = smooth_pair(lattice, jnp.asarray(displacement))
    rounded = smooth_pair(lattice.astype(jnp.float32), jnp.asarray(displacement, jnp.float32))
    for one, two in zip(exact, rounded, strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=2e-6 * np.abs(one).max())  # a few roundings


def test_the_formula_for_orthogonal_vectors():
    """(L / 2 pi)^2 sum 2 (1 - cos phi), the usual choice for such cells."""
    lengths, displacement = np.array([3.0, 4.0, 5.5]), np.array([0.7, -1.9, 2.4])
    phase = 2 * np.pi * displacement / lengths
    square, vector = smooth(np.diag(lengths), displacement)
    assert square == pytest.approx(np.sum((lengths / (2 * np.pi)) ** 2 * 2 * (1 - np.cos(phase))))
    np.testing.assert_allclose(vector, lengths / (2 * np.pi) * np.sin(phase), atol=1e-13)


def test_the_vector_is_half_the_gradient_of_the_square():
    lattice = smooth_lattice(random_cell(5, skew=0.4))
    displacement = jnp.asarray(np.random.default_rng(5).normal(size=(6, 3)) * 3)
    gradient = jax.vmap(jax.grad(lambda d: 0.5 * smooth_pair(lattice, d)[0]))(displacement)
    np.testing.assert_allclose(gradient, smooth_pair(lattice, displacement)[1], atol=1e-12)


@pytest.mark.parametrize("cell", [FCC, BCC, HEXAGONAL], ids=["fcc", "bcc", "hexagonal"])
def test_symmetries_of_the_lattice(cell):
    """Every orthogonal matrix that maps the lattice on itself, found among matrices of small whole numbers."""
    displacement = np.random.default_rng(6).normal(size=(4, 3)) * 2
    square, vector = smooth(cell, displacement)
    numbers = np.array(list(itertools.product((-1, 0, 1), repeat=9))).reshape(-1, 3, 3)
    metric = cell @ cell.T
    kept = numbers[np.all(np.abs(numbers @ metric @ np.swapaxes(numbers, 1, 2) - metric) < 1e-9, axis=(1, 2))]
    assert len(kept) == (24 if cell is HEXAGONAL else 48)
    for rotation in np.linalg.inv(cell) @ kept @ cell:
        turned = smooth(cell, displacement @ rotation)
        np.testing.assert_allclose(turned[0], square, atol=1e-12)
        np.testing.assert_allclose(turned[1], vector @ rotation, atol=1e-12)


def test_continuous_where_the_superbase_changes():
    """At a right angle the superbase changes from one choice to another; distances do not notice."""
    displacement = np.random.default_rng(7).normal(size=(10, 3)) * 3
    results = []
    for angle in (-1e-7, 1e-7):
        cell = np.diag([3.0, 3.5, 4.0])
        cell[1, 0], cell[2, 1] = angle, -angle
        results.append(smooth(cell, displacement))
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_smooth_across_the_border_of_the_minimum_image():
    lattice = smooth_lattice(np.diag([3.0, 4.0, 5.0]))
    slope = jax.jit(jax.grad(lambda x: smooth_pair(lattice, jnp.stack([x, x * 0 + 0.3, x * 0]))[0]))
    left, right = float(slope(1.5 - 1e-6)), float(slope(1.5 + 1e-6))
    assert left == pytest.approx(right, abs=1e-5)  # a kink would jump by 2 * 1.5; the curvature gives 2e-6
    assert left == pytest.approx(0, abs=1e-5)


def test_wrapped_points_are_near_the_origin_and_as_far_from_each_other():
    lattice, points = smooth_lattice(random_cell(9)), np.random.default_rng(9).normal(size=(6, 3)) * 40
    moved = np.asarray(wrapped(lattice, jnp.asarray(points)))
    assert np.abs(moved @ lattice.turns).max() <= 0.5
    turns = (points - moved) @ lattice.turns
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-12)  # rounding
    before, after = (smooth_pair(lattice, jnp.asarray(p[:, None] - p[None]))[0] for p in (points, moved))
    np.testing.assert_allclose(after, before, atol=1e-11)  # rounding of 40 bohr


def test_means_over_the_cell():
    """Of s^2 the sum of p_ij / 2 pi^2, exactly, since all cosines average to zero."""
    lattice: SmoothLattice = smooth_lattice(random_cell(8)).astype(jnp.float64)
    assert float(jnp.mean(squares_over_the_cell(lattice, 12))) == pytest.approx(float(jnp.sum(lattice.squares)))
