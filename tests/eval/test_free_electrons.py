"""Twists and supercells where everything is known: electrons that do not see each other."""

import itertools

import numpy as np
import pytest

from fnqs.ansatz import orbital_basis
from fnqs.ansatz.open_shell import FREE_ELECTRON_FERMI_ENERGY
from fnqs.ansatz.orbital_basis import make_orbital_basis
from fnqs.configuration import fold_twist, make_configuration
from fnqs.model_config import ModelConfig
from fnqs.periodic.cell import reciprocal_vectors
from fnqs.periodic.smooth_distance import reduced_cell
from fnqs_data.generate.crystals import lattice
from fnqs_eval.energies.twists import monkhorst_pack, parse_twists

TRICLINIC = np.array([[2.7, 0.1, -0.2], [0.3, 3.0, 0.2], [-0.1, 0.3, 2.8]])
PROTONS = np.array([[0.1, 0.2, 0.3], [1.4, 1.3, 1.4]])
DOUBLE = np.array([[2], [1], [1]])
TWIST = np.array([0.3, 0.1, -0.2])


def free_levels(cell, twist, reach=5):
    """(G + k)^2 / 2 in Ha, ascending; all that lie below those left out."""
    waves = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    return np.sort(0.5 * np.sum(((waves + twist) @ reciprocal_vectors(cell)) ** 2, axis=1))


def halves(twist):
    """Twists of a cell that fold onto this one when the cell is doubled along its first vector."""
    return [fold_twist(np.array([(twist[0] + m) / 2, *twist[1:]])) for m in (0, 1)]


@pytest.mark.parametrize("twist", [np.zeros(3), np.array([0.5, 0.0, 0.5]), TWIST])
def test_free_levels_of_a_supercell_are_those_of_its_folded_twists(twist):
    folded = np.sort(np.concatenate([free_levels(TRICLINIC, small) for small in halves(twist)]))
    np.testing.assert_allclose(free_levels(TRICLINIC * DOUBLE, twist, 9)[:200], folded[:200], rtol=1e-12)  # rounding


@pytest.mark.parametrize("size", [2, 3])
def test_a_grid_of_twists_is_a_supercell(size):
    """A q x q x q grid is the supercell of q^3 cells at Gamma (q odd) or at its corner (q even)."""
    grid, corner = parse_twists(f"{size}x{size}x{size}"), np.full(3, 0.5 * ((size + 1) % 2))
    temperature = 0.5
    averaged = grid.weights @ [np.exp(-free_levels(TRICLINIC, twist) / temperature).sum() for twist in grid.twists]
    whole = np.exp(-free_levels(size * TRICLINIC, corner, 5 * size) / temperature).sum()
    # Levels left out lie above 50 Ha: exp(-100).
    assert averaged == pytest.approx(whole / size**3, rel=1e-12)


def levels(cell, protons, twist, config):
    return np.linalg.eigvalsh(make_orbital_basis(make_configuration(cell, protons, twist), config).hamiltonian)


def lattice_potential(cell):
    """Stands in for the screened potential: one with the period of TRICLINIC, on the grid of a cell."""
    cell = reduced_cell(cell)
    counts = orbital_basis.grid_counts(cell)
    points = np.stack(np.meshgrid(*[np.arange(n) / n for n in counts], indexing="ij"), -1).reshape(-1, 3)
    fractional = (points @ cell - PROTONS[0]) @ np.linalg.inv(TRICLINIC)
    return -1.0 - 0.3 * np.sum(np.cos(2 * np.pi * fractional), axis=1)


@pytest.mark.parametrize(("twist", "count"), [(np.zeros(3), 1), (TWIST, 2)], ids=["gamma", "twist"])
@pytest.mark.parametrize("potential", [False, True])
def test_orbital_basis_of_a_supercell(monkeypatch, twist, count, potential):
    """Kinetic energy, twist and potential fold; the orbitals themselves are not the same functions in a larger cell.

    Of the levels at Gamma only the lowest is compared. The second comes from the twist (1/2, 0, 0), where the waves k
    and -k must mix evenly, and two protons have not the orbitals for it.
    """
    config = ModelConfig(s_exponents=(2.4, 1.2, 0.6, 0.3, 0.13), p_exponents=(0.8, 0.4, 0.2))

    def found(cell, protons, twist):
        field = (
            lattice_potential(cell) if potential else np.zeros(np.prod(orbital_basis.grid_counts(reduced_cell(cell))))
        )
        monkeypatch.setattr(orbital_basis, "screened_potential", lambda square: field)
        return levels(cell, protons, twist, config)

    double = np.concatenate([PROTONS, PROTONS + TRICLINIC[0]])
    large = found(TRICLINIC * DOUBLE, double, twist)
    small = [found(TRICLINIC, PROTONS, folded) for folded in halves(twist)]
    # Two bases, each within some 3 mHa of the exact levels; one level taken for another would be 100 mHa and more.
    np.testing.assert_allclose(large[:count], np.sort(np.concatenate(small))[:count], atol=5e-3)


def kinetic_energies(number, twists):
    """Kinetic energy per electron times r_s^2 of N electrons in a body-centred cell of theirs, at every twist."""
    cell = lattice("bcc", number)[0][0] * (4 * np.pi / 3) ** (1 / 3)
    return np.array([free_levels(cell, twist, 3)[: number // 2].mean() for twist in twists])


@pytest.mark.parametrize(("number", "bias"), [(8, 0.02), (16, 0.01)])
def test_shell_effects_shrink_with_the_number_of_twists(number, bias):
    """Towards the energy per electron of the infinite gas, 1.105 / r_s^2, which Gamma misses by a tenth or more.

    What stays is the price of a fixed number of electrons at every twist: states above the Fermi sphere are filled
    at some twists and states inside left empty at others. It is positive and falls as 1/N or faster.
    """
    limit = 0.6 * FREE_ELECTRON_FERMI_ENERGY
    assert limit == pytest.approx(1.105, abs=5e-4)
    excess = {}
    for size in (1, 2, 4, 8):
        chosen = parse_twists(f"{size}x{size}x{size}")
        excess[size] = chosen.weights @ kinetic_energies(number, chosen.twists) / limit - 1
    full = kinetic_energies(number, monkhorst_pack([4] * 3)).mean() / limit - 1
    assert full == pytest.approx(excess[4], abs=1e-12)  # rounding
    assert excess[1] > 0.1
    assert max(abs(excess[2] - excess[8]), abs(excess[4] - excess[8])) < 0.03 * excess[1]
    assert 0 < excess[8] < bias
