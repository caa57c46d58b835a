import numpy as np
import pytest
import spglib

from fnqs.errors import InputError
from fnqs.periodic.cell import minimum_image_distances
from fnqs_data.generate.crystals import (
    ATOMIC_CRYSTALS,
    compact_supercells,
    coset_minima,
    hermite_forms,
    lattice,
    primitive_cell,
    reduce_cells,
)
from fnqs_data.generate.molecular import bond_length, molecular_lattice, place_molecules

SPACE_GROUPS = {"bcc": 229, "fcc": 225, "sc": 221, "hcp": 194, "diamond": 227, "beta-tin": 141, "cs-iv": 141}


def space_group(cell, positions) -> int:
    fractional = positions @ np.linalg.inv(cell)
    # Positions come from products of float64 matrices: 1e-6 is far above rounding, far below any distance.
    found = spglib.get_symmetry_dataset((cell, fractional, [1] * len(positions)), symprec=1e-6)
    return found.number


@pytest.mark.parametrize("phase", ATOMIC_CRYSTALS)
@pytest.mark.parametrize("number", [2, 4, 8, 54])
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
    with pytest.raises(InputError, match="multiple"):
        molecular_lattice("pa3", 4, None)
    with pytest.raises(InputError, match="too large"):
        molecular_lattice("pa3", 8 * 300, None)
    with pytest.raises(InputError, match="24 protons"):
        molecular_lattice("cmca-12", 12, (1, 1, 1))


@pytest.mark.parametrize(("index", "sublattices"), [(1, 1), (2, 7), (4, 35), (8, 155)])
def test_all_sublattices_are_tried(index, sublattices):
    # The number of sublattices of index n in three dimensions, OEIS A001001.
    forms = hermite_forms(index)
    assert len(forms) == sublattices
    assert {round(np.linalg.det(form)) for form in forms} == {index}


@pytest.mark.parametrize("index", [5, 16])
def test_lattices_are_reduced_and_told_apart_by_their_shape(index):
    # The same sublattices in a random basis and orientation are as short, and their invariants are the same.
    rng = np.random.default_rng(index)
    cells = np.stack(hermite_forms(index)).astype(float)
    mixed = np.array([[1, 2, -1], [0, 1, 3], [1, 2, 0]]) @ cells @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    first, second = reduce_cells(cells), reduce_cells(mixed)
    np.testing.assert_allclose(np.abs(np.linalg.det(second)), index, rtol=1e-9)  # sums of small whole numbers
    for reduced in (first, second):
        lengths = np.linalg.norm(reduced, axis=2)
        assert (np.diff(lengths, axis=1) > -1e-9).all()
        # Minkowski: no vector gets shorter by adding shorter ones to it.
        for i, j in ((1, 0), (2, 0), (2, 1)):
            for sign in (1, -1):
                assert (np.linalg.norm(reduced[:, i] + sign * reduced[:, j], axis=1) > lengths[:, i] - 1e-9).all()
    np.testing.assert_allclose(coset_minima(first), coset_minima(second), atol=1e-9)


def test_supercells_are_as_round_as_they_can_be():
    # Of all sublattices of index 27 and 32 of the simple cube the roundest have shortest vectors 3 and sqrt(11).
    for index, shortest in ((27, 3.0), (32, np.sqrt(12))):
        cells = [matrix @ np.eye(3) for matrix in compact_supercells(np.eye(3), index)]
        assert np.linalg.norm(cells[0], axis=1).min() >= shortest - 1e-9
        for cell in cells:
            assert abs(np.linalg.det(cell)) == pytest.approx(index)
            assert np.linalg.norm(cell, axis=1).min() >= 0.8 * shortest


MOLECULAR_SPACE_GROUPS = {"pa3": (205, 8), "cmca-4": (64, 4), "cmca-12": (64, 12), "c2c-24": (15, 24)}
MOLECULAR_SPACE_GROUPS["p63m-16"] = (176, 16)


@pytest.mark.parametrize(
    ("phase", "number", "repeats"),
    [
        ("pa3", 8, None),
        ("pa3", 64, None),
        ("pa3", 16, (1, 1, 2)),
        ("cmca-4", 4, None),
        ("cmca-4", 8, (1, 1, 1)),
        ("cmca-4", 96, None),
        ("cmca-12", 12, None),
        ("cmca-12", 48, (1, 1, 2)),
        ("c2c-24", 24, None),
        ("c2c-24", 96, None),
        ("p63m-16", 16, None),
        ("p63m-16", 128, None),
    ],
)
def test_ordered_molecular_crystals_have_their_space_group_bond_and_gap(phase, number, repeats):
    rng = np.random.default_rng(0)
    group, primitive = MOLECULAR_SPACE_GROUPS[phase]
    for cell, centres, axes in molecular_lattice(phase, number, repeats):
        assert axes is not None
        np.testing.assert_allclose(np.linalg.norm(axes, axis=1), 1, atol=1e-15)  # rounding of unit vectors
        assert abs(np.linalg.det(cell)) == pytest.approx(number / 2, rel=1e-12)  # rounding of one determinant
        scale = 1.5 * (8 * np.pi / 3) ** (1 / 3)
        bonds = np.full(len(centres), 1.36)
        protons = place_molecules(scale * centres, axes, bonds, 0.0, rng)
        assert space_group(scale * cell, protons) == group
        found = spglib.find_primitive((scale * cell, protons @ np.linalg.inv(scale * cell), [1] * number))
        assert len(found[2]) == primitive
        distances = np.sort(minimum_image_distances(scale * cell, protons), axis=1)
        np.testing.assert_allclose(distances[:, 0], 1.36, atol=1e-10)  # products of float64 matrices
        assert distances[:, 1].min() > 1.7 * 1.36  # every other proton is far away, even at r_s = 1.5


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
