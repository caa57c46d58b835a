"""Periodic geometry against brute force and its own symmetries."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.cell import cell_volume, minimum_image_distances, reciprocal_vectors, smooth_displacement


def random_cell(seed, skew=0.2):
    return 4.0 * (np.eye(3) + np.random.default_rng(seed).uniform(-skew, skew, (3, 3)))


def test_volume_and_reciprocal_vectors():
    cells = np.stack([random_cell(0), np.diag([1.0, 2.0, 3.0])])
    volumes = cell_volume(cells)
    assert volumes[1] == pytest.approx(6.0)
    assert volumes[0] == pytest.approx(cells[0, 0] @ np.cross(cells[0, 1], cells[0, 2]))
    assert cell_volume(cells[0, [1, 0, 2]]) == pytest.approx(-volumes[0])
    products = cells @ np.swapaxes(reciprocal_vectors(cells), -1, -2)
    np.testing.assert_allclose(products, np.broadcast_to(2 * np.pi * np.eye(3), (2, 3, 3)), atol=1e-14)  # rounding


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_minimum_image_distances_are_the_shortest_over_many_images(seed):
    generator = np.random.default_rng(seed)
    cell = random_cell(seed)
    points = generator.random((3, 3)) @ cell
    images = np.array(list(itertools.product(range(-4, 5), repeat=3))) @ cell
    distances = minimum_image_distances(cell, points + generator.integers(-9, 10, (3, 3)) @ cell)
    for i, j in itertools.product(range(3), repeat=2):
        lengths = np.linalg.norm(points[i] - points[j] + images, axis=1)
        expected = lengths[lengths > 1e-9].min()
        assert distances[i, j] == pytest.approx(expected, rel=1e-12)  # rounding


def test_minimum_image_distances_do_not_depend_on_the_basis_of_the_lattice():
    # The first height of the skewed basis is 0.27 cube roots of the volume, which configurations may have.
    cell = np.eye(3) * 4.0
    skewed = np.array([[1, 0, 0], [2, 1, 0], [3, 0, 1]]) @ cell
    points = np.random.default_rng(5).random((40, 3)) @ cell
    expected = minimum_image_distances(cell, points)
    np.testing.assert_allclose(minimum_image_distances(skewed, points), expected, atol=1e-12)  # rounding


def test_distance_to_the_own_image_is_the_shortest_lattice_vector():
    np.testing.assert_allclose(np.diag(minimum_image_distances(np.diag([3.0, 1.0, 2.0]), np.zeros((2, 3)) + 5)), 1.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_smooth_displacement_is_periodic_and_odd(seed):
    generator = np.random.default_rng(seed)
    cell, displacement = random_cell(seed), generator.normal(size=(5, 3)) * 3
    square, vector = smooth_displacement(jnp.asarray(cell), jnp.asarray(displacement))
    shifted = displacement + generator.integers(-3, 4, (5, 3)) @ cell
    other = smooth_displacement(jnp.asarray(cell), jnp.asarray(shifted))
    np.testing.assert_allclose(other[0], square, atol=1e-12)  # rounding of phases of about 30
    np.testing.assert_allclose(other[1], vector, atol=1e-12)
    mirrored = smooth_displacement(jnp.asarray(cell), jnp.asarray(-displacement))
    np.testing.assert_allclose(mirrored[0], square, atol=1e-12)
    np.testing.assert_allclose(mirrored[1], -vector, atol=1e-12)
    assert np.all(np.asarray(square) > 0)


def test_smooth_displacement_equals_short_ones():
    cell, displacement = random_cell(1), np.random.default_rng(1).normal(size=(5, 3)) * 1e-3
    square, vector = smooth_displacement(jnp.asarray(cell), jnp.asarray(displacement))
    # the first corrections are of relative size (2 pi d / L)^2, some 1e-5
    np.testing.assert_allclose(square, np.sum(displacement**2, 1), rtol=1e-4)
    np.testing.assert_allclose(vector, displacement, rtol=0, atol=1e-4 * np.abs(displacement).max())


def test_smooth_displacement_has_the_metric_of_the_notes():
    cell, displacement = random_cell(2), np.array([0.7, -1.9, 2.4])
    phase = 2 * np.pi * displacement @ np.linalg.inv(cell)
    even, odd = 1 - np.cos(phase), np.sin(phase)
    expected = np.sum((np.outer(even, even) + np.outer(odd, odd)) * (cell @ cell.T)) / (4 * np.pi**2)
    assert float(smooth_displacement(jnp.asarray(cell), jnp.asarray(displacement))[0]) == pytest.approx(expected)


def test_smooth_displacement_does_not_see_rotations_and_half_vectors_are_no_zeros():
    cell, displacement = random_cell(3), np.array([1.1, 0.4, -2.0])
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    square, vector = smooth_displacement(jnp.asarray(cell), jnp.asarray(displacement))
    rotated = smooth_displacement(jnp.asarray(cell @ rotation), jnp.asarray(displacement @ rotation))
    assert float(rotated[0]) == pytest.approx(float(square))
    np.testing.assert_allclose(rotated[1], vector @ rotation, atol=1e-13)  # rounding
    for fractions in itertools.product((0, 0.5), repeat=3):
        at_half = smooth_displacement(jnp.asarray(cell), jnp.asarray(np.array(fractions) @ cell))
        np.testing.assert_allclose(at_half[1], 0, atol=1e-14)
        assert (float(at_half[0]) > 0.1) == any(fractions)


def test_smooth_displacement_is_smooth_across_the_minimum_image_border():
    cell = jnp.asarray(np.diag([3.0, 4.0, 5.0]))
    slope = jax.jit(jax.grad(lambda x: smooth_displacement(cell, jnp.stack([x, x * 0 + 0.3, x * 0]))[0]))
    left, right = float(slope(1.5 - 1e-6)), float(slope(1.5 + 1e-6))
    assert left == pytest.approx(right, abs=1e-5)  # a kink would jump by 2 * 1.5; the curvature gives 2e-6
    assert left == pytest.approx(0, abs=1e-5)
