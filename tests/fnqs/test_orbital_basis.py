"""Overlaps and starting Hamiltonian of the orbitals against finer grids, finite differences and free electrons."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.ansatz import orbital_basis
from fnqs.ansatz.geminal import orbitals
from fnqs.ansatz.orbital_basis import OVERLAP_FLOOR, OrbitalBasis, make_orbital_basis
from fnqs.configuration import Configuration, make_configuration
from fnqs.model_config import ModelConfig
from fnqs.periodic.cell import reciprocal_vectors
from fnqs.periodic.smooth_distance import reduced_cell, smooth_lattice

CONFIG = ModelConfig()
TWIST = np.array([0.13, -0.21, 0.4])
ROUNDING = 1e-10
"""Relative float64 rounding, magnified at most by the inverse of OVERLAP_FLOOR."""

CELL = np.array([[3.2, 0.1, -0.2], [0.3, 3.5, 0.2], [-0.1, 0.4, 3.3]])
PROTONS = np.array([[0.1, 0.2, 0.3], [1.4, 0.3, 0.4], [0.2, 1.9, 2.0], [1.8, 2.1, 1.6]])


def configuration(twist=(0.0, 0.0, 0.0)) -> Configuration:
    return make_configuration(CELL, PROTONS, twist)


def unfold(basis: OrbitalBasis) -> tuple[np.ndarray, np.ndarray]:
    """Overlap and Hamiltonian of normalised orbitals; exact where there is no floor under the overlap."""
    overlap = basis.root @ basis.root.T
    hamiltonian = basis.root @ basis.hamiltonian @ basis.root.T
    norm = 1 / np.sqrt(np.diag(overlap))
    return norm[:, None] * overlap * norm, norm[:, None] * hamiltonian * norm


def fine_integrals(cell, protons, twist, points=24):
    """Overlap and kinetic matrix by differentiating exp(ikr) times the wave function's own orbitals.

    The derivative is that of the interpolating trigonometric polynomial, exact for smooth periodic functions.
    """
    axis = np.arange(points) / points
    fractional = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    values = np.asarray(orbitals(smooth_lattice(cell), jnp.asarray(protons), jnp.asarray(fractional @ cell), CONFIG))
    volume = abs(np.linalg.det(cell)) / len(fractional)
    spectrum = np.fft.fftn(values.reshape(points, points, points, -1), axes=(0, 1, 2)).reshape(len(fractional), -1)
    waves = np.stack(np.meshgrid(*[np.fft.fftfreq(points, 1 / points)] * 3, indexing="ij"), -1).reshape(-1, 3)
    square = np.sum(((waves + twist) @ reciprocal_vectors(cell)) ** 2, axis=-1)
    overlap = volume * values.T @ values
    kinetic = 0.5 * volume / len(fractional) * spectrum.conj().T @ (square[:, None] * spectrum)
    norm = 1 / np.sqrt(np.diag(overlap))
    return norm[:, None] * overlap * norm, norm[:, None] * kinetic * norm


def without_floor(monkeypatch):
    monkeypatch.setattr(orbital_basis, "OVERLAP_FLOOR", 0.0)


def without_potential(monkeypatch):
    monkeypatch.setattr(orbital_basis, "screened_potential", lambda square: np.zeros(len(square)))


@pytest.mark.parametrize("twist", [np.zeros(3), TWIST])
def test_is_hermitian_and_consistent(twist):
    basis = make_orbital_basis(configuration(twist), CONFIG)
    number = len(PROTONS) * orbital_basis.orbitals_per_proton(CONFIG)
    assert basis.hamiltonian.shape == (number, number)
    assert np.iscomplexobj(basis.hamiltonian) == bool(twist.any())
    np.testing.assert_array_equal(basis.hamiltonian, basis.hamiltonian.conj().T)
    np.testing.assert_allclose(basis.inverse @ basis.root, np.eye(number), atol=ROUNDING)
    levels = np.linalg.eigvalsh(unfold(basis)[0])
    assert levels.min() > 0.5 * OVERLAP_FLOOR


@pytest.mark.parametrize("twist", [np.zeros(3), TWIST])
def test_overlap_and_kinetic_energy(monkeypatch, twist):
    without_floor(monkeypatch)
    without_potential(monkeypatch)
    overlap, kinetic = unfold(make_orbital_basis(configuration(twist), CONFIG))
    expected_overlap, expected_kinetic = fine_integrals(CELL, PROTONS, twist)
    # What the grid leaves may not be noticed next to the floor, nor next to the energies of some ten Ha of the
    # narrowest orbitals.
    np.testing.assert_allclose(overlap, expected_overlap, atol=0.5 * OVERLAP_FLOOR)
    np.testing.assert_allclose(kinetic, expected_kinetic, atol=5 * OVERLAP_FLOOR)


@pytest.mark.parametrize("twist", [np.zeros(3), TWIST])
def test_converges_with_the_grid(monkeypatch, twist):
    without_floor(monkeypatch)
    monkeypatch.setattr(orbital_basis, "GRID_SPACING", 0.2)
    fine = make_orbital_basis(configuration(twist), CONFIG)
    monkeypatch.setattr(orbital_basis, "GRID_SPACING", 0.15)
    finer = make_orbital_basis(configuration(twist), CONFIG)
    for one, other in zip(unfold(fine), unfold(finer), strict=True):
        # The screened potential has a weak kink at every proton, so the grid converges as its fourth power.
        np.testing.assert_allclose(one, other, atol=2e-4)
    without_potential(monkeypatch)
    overlap, kinetic = unfold(make_orbital_basis(configuration(twist), CONFIG))
    expected_overlap, expected_kinetic = fine_integrals(CELL, PROTONS, twist)
    np.testing.assert_allclose(overlap, expected_overlap, atol=ROUNDING)
    np.testing.assert_allclose(kinetic, expected_kinetic, atol=20 * ROUNDING)


def test_occupied_levels_are_converged(monkeypatch):
    """The lowest levels are what an untrained model fills: 1 mHa is far below what training has to mend."""
    coarse = np.linalg.eigvalsh(make_orbital_basis(configuration(), CONFIG).hamiltonian)[:2]
    monkeypatch.setattr(orbital_basis, "GRID_SPACING", 0.15)
    fine = np.linalg.eigvalsh(make_orbital_basis(configuration(), CONFIG).hamiltonian)[:2]
    np.testing.assert_allclose(coarse, fine, atol=1e-3)


@pytest.mark.parametrize("twist", [(0.0, 0.0, 0.0), (0.3, 0.0, 0.0), (0.2, -0.4, 0.1)])
def test_lowest_level_of_an_empty_lattice(monkeypatch, twist):
    """Without potential the lowest Bloch state is the constant, with energy k^2 / 2."""
    without_potential(monkeypatch)
    edge = 2.66
    protons = edge * np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    levels = np.linalg.eigvalsh(
        make_orbital_basis(make_configuration(edge * np.eye(3), protons, twist), CONFIG).hamiltonian
    )
    waves = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    free = np.sort(0.5 * np.sum(((waves + twist) * 2 * np.pi / edge) ** 2, axis=1))
    # The sum of wide Gaussians on a body-centred lattice is constant to about 1 %, and the floor under the
    # overlap costs at most its redundant energy times itself, 0.02 Ha.
    assert levels[0] == pytest.approx(free[0], abs=0.02)
    # Variational: no level lies under the free one of its number, but for errors of the grid.
    assert (levels[:8] > free[:8] - 1e-3).all()


def test_twist_and_its_opposite_are_conjugate():
    one = make_orbital_basis(configuration(TWIST), CONFIG).hamiltonian
    other = make_orbital_basis(configuration(-TWIST), CONFIG).hamiltonian
    np.testing.assert_allclose(one, other.conj(), atol=ROUNDING)
    assert np.abs(np.imag(one)).max() > 1e-2


def test_orbitals_are_those_of_the_wave_function():
    """The host's orbitals on its grid are the ones that electrons see there."""
    counts = [4, 5, 6]
    lattice = smooth_lattice(CELL)
    values, _ = orbital_basis.grid_orbitals(lattice, counts, PROTONS, CONFIG)
    integers = np.array(list(itertools.product(*[range(count) for count in counts])))
    points = jnp.asarray(integers / counts @ reduced_cell(CELL))
    expected = orbitals(lattice, jnp.asarray(PROTONS), points, CONFIG)
    np.testing.assert_allclose(values, np.asarray(expected), atol=1e-13)  # rounding
