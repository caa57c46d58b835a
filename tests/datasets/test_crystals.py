import numpy as np
import pytest
import spglib

from fnqs.errors import InputError
from fnqs_data.generate.crystals import ATOMIC_CRYSTALS, hermite_forms, lattice, primitive_cell
from fnqs_data.generate.molecular import bond_length, molecular_lattice, place_molecules

SPACE_GROUPS = {"bcc": 229, "fcc": 225, "sc": 221, "hcp": 194, "diamond": 227, "beta-tin": 141, "cs-iv": 141}


def space_group(cell, positions) -> int:
    fractional = positions @ np.linalg.inv(cell)
    # Positions come from products of float64 matrices: 1e-6 is far above rounding, far below any distance.
    found = spglib.get_symmetry_dataset((cell, fractional, [1] * len(positions)), symprec=1e-6)
    return found.number


@pytest.mark.parametrize("phase", ATOMIC_CRYSTALS)
@pytest.mark.parametrize("number", [2, 4, 8])
def test_every_supercell_has_the_space_group_of_its_crystal(phase, number):
    shapes = lattice(phase, number)
    assert 1 <= len(shapes) <= 4
    for cell, sites in shapes:
        assert sites.shape == (number, 3)
        assert abs(np.linalg.det(cell)) == pytest.approx(number, rel=1e-12)  # rounding of one determinant
        assert space_group(cell, sites) == SPACE_GROUPS[phase]


def test_the_tetragonal_crystals_differ_in_shape_only():
    low, high = (primitive_cell(phase) for phase in ("beta-tin", "cs-iv"))
    assert len(low) == len(high) == 2
    edges = [np.linalg.norm(atoms.cell.array, axis=1).max() for atoms in (low, high)]
    assert edges[0] < edges[1]


def test_repeats_give_the_conventional_supercell():
    ((cell, sites),) = lattice("bcc", 16, (2, 2, 2))
    np.testing.assert_allclose(cell, 16 ** (1 / 3) * np.eye(3), atol=1e-14)  # one rounding of a length near 2.5
    assert len(sites) == 16


def test_impossible_numbers_are_input_errors():
    with pytest.raises(InputError, match="multiple"):
        lattice("diamond", 3)
    with pytest.raises(InputError, match="sites"):
        lattice("bcc", 4, (2, 2, 2))
    with pytest.raises(InputError, match="supercell"):
        lattice("sc", 4000)
    with pytest.raises(InputError, match="fcc"):
        molecular_lattice("pa3", 4, None)


@pytest.mark.parametrize(("index", "sublattices"), [(1, 1), (2, 7), (4, 35), (8, 155)])
def test_all_sublattices_are_tried(index, sublattices):
    # The number of sublattices of index n in three dimensions, OEIS A001001.
    forms = hermite_forms(index)
    assert len(forms) == sublattices
    assert {round(np.linalg.det(form)) for form in forms} == {index}


@pytest.mark.parametrize(("number", "repeats"), [(8, None), (64, None), (16, (1, 1, 2))])
def test_pa3_has_its_space_group(number, repeats):
    rng = np.random.default_rng(0)
    ((cell, centres, axes),) = molecular_lattice("pa3", number, repeats)
    assert axes is not None
    np.testing.assert_allclose(np.linalg.norm(axes, axis=1), 1, atol=1e-15)  # rounding of unit vectors
    protons = place_molecules(centres, axes, np.full(len(centres), 0.5), 0.0, rng)
    assert space_group(cell, protons) == 205


def test_molecules_have_their_bond_and_centre():
    rng = np.random.default_rng(0)
    centres, bonds = rng.normal(size=(5, 3)), rng.uniform(1, 2, 5)
    for axes in (None, np.tile([0.0, 0.0, 1.0], (5, 1))):
        protons = place_molecules(centres, axes, bonds, 0.3, rng).reshape(5, 2, 3)
        # Sums of numbers of size one: a few units in the last place.
        np.testing.assert_allclose(protons.mean(1), centres, atol=1e-14)
        np.testing.assert_allclose(np.linalg.norm(protons[:, 0] - protons[:, 1], axis=1), bonds, atol=1e-14)


def test_bond_length_shrinks_modestly():
    assert bond_length(2.7) == 1.40
    assert bond_length(1.0) == 1.36
    assert 1.36 < bond_length(1.9) < 1.40
