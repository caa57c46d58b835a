"""Periodic geometry against brute force and its own symmetries."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.periodic.cell import cell_volume, minimum_image_distances, reciprocal_vectors, shortest_wave_vector


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


def test_minimum_image_distances_of_many_points():
    # More pairs than are looked at together, and most of them farther apart than half of the cell.
    generator = np.random.default_rng(3)
    cell = random_cell(3)
    points = generator.random((260, 3)) @ cell
    images = np.array(list(itertools.product(range(-2, 3), repeat=3))) @ cell
    distances = minimum_image_distances(cell, points)
    for i in (0, 131, 259):
        lengths = np.linalg.norm(points[i] - points[:, None] + images, axis=2)
        lengths[i, lengths[i] < 1e-9] = np.inf
        np.testing.assert_allclose(distances[i], lengths.min(axis=1), rtol=1e-12)  # rounding
    np.testing.assert_array_equal(distances, distances.T)


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
def test_shortest_wave_vector_has_the_phases_of_the_twist_in_any_cell(seed):
    generator = np.random.default_rng(seed)
    cell, twist = random_cell(seed), generator.uniform(-0.49, 0.5, 3)
    found = shortest_wave_vector(cell, twist)
    turns = (found - twist @ reciprocal_vectors(cell)) @ cell.T / (2 * np.pi)
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-12)  # rounding
    others = found + np.array(list(itertools.product(range(-3, 4), repeat=3))) @ reciprocal_vectors(cell)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(others, axis=1).min(), rel=1e-12)
    sheared = np.array([[1, 2, -1], [0, 1, 1], [0, 0, 1]])
    np.testing.assert_allclose(shortest_wave_vector(sheared @ cell, sheared @ twist), found, atol=1e-12)


def test_of_two_shortest_wave_vectors_the_given_one_is_taken():
    for twist in ([0.5, 0.0, 0.0], [0.5, 0.5, 0.25]):
        np.testing.assert_allclose(shortest_wave_vector(2 * np.pi * np.eye(3), np.array(twist)), twist)
