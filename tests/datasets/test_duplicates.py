from dataclasses import replace

import numpy as np
import pytest
from ase.geometry import minkowski_reduce
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.configuration import Configuration
from fnqs.errors import InputError
from fnqs.periodic.cell import minimum_image_distances
from fnqs_data.inspect.duplicates import aligned_rms, environments, find_duplicates, invariants, reach
from fnqs_data.store.record import Record
from fnqs_data.store.write import write_dataset

TOLERANCE = 0.02


def structure(rng, number: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A cell with protons that keep their distance: cubic, hexagonal or neither."""
    shape = {
        "cubic": np.eye(3),
        "hexagonal": np.array([[1, 0, 0], [-0.5, 3**0.5 / 2, 0], [0, 0, 1.3]]),
        "triclinic": np.eye(3) + rng.uniform(-0.25, 0.25, (3, 3)),
    }[kind]
    cell = shape * (5.0 * number / abs(np.linalg.det(shape))) ** (1 / 3)
    protons = rng.random((number, 3)) @ cell
    while minimum_image_distances(cell, protons).min() < 0.8:
        protons = rng.random((number, 3)) @ cell
    return cell, protons


def disguised(rng, cell, protons, rms: float, strain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The same structure, displaced by `rms`: other lattice vectors, turned or mirrored, shifted, reordered."""
    noise = rng.normal(size=protons.shape)
    noise -= noise.mean(axis=0)
    noise *= rms / np.sqrt(np.mean(np.sum(noise**2, axis=1)))
    change = rng.normal(size=(3, 3))
    change *= strain / np.linalg.norm(change, axis=1).max()
    protons = protons @ np.linalg.inv(cell) @ (cell + change) + noise
    cell = cell + change
    basis = np.eye(3)
    for _ in range(4):
        i, j = rng.choice(3, size=2, replace=False)
        basis[i] += rng.choice([-1, 1]) * basis[j]
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    protons = protons + rng.integers(-2, 3, protons.shape) @ cell + rng.normal(size=3)
    return basis @ cell @ rotation, rng.permutation(protons) @ rotation


def described(cell, fractional):
    return invariants(cell, environments(cell, fractional))


def reduced(cell, protons):
    cell = np.asarray(minkowski_reduce(cell)[0])
    return cell, protons @ np.linalg.inv(cell)


kinds = st.sampled_from(["cubic", "hexagonal", "triclinic"])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), number=st.sampled_from([2, 4, 8, 16]), kind=kinds, part=st.floats(0, 0.95))
def test_a_disguised_structure_is_found_and_its_rms_measured(seed, number, kind, part):
    rng = np.random.default_rng(seed)
    cell, protons = structure(rng, number, kind)
    one = reduced(cell, protons)
    other = reduced(*disguised(rng, cell, protons, part * TOLERANCE))
    apart = described(*one) - described(*other)
    _, distances = reach(number)
    # 1e-9: rounding of rotated coordinates.
    assert np.linalg.norm(apart[:7]) <= 1e-9
    assert np.linalg.norm(apart[7:]) <= distances * part * TOLERANCE + 1e-9
    rms = aligned_rms(*one, *other, TOLERANCE)
    # Another alignment may fit better than the one the structure was made with, never worse.
    assert rms is not None
    assert rms <= part * TOLERANCE + 1e-9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), number=st.sampled_from([2, 8, 16]), kind=kinds)
def test_invariants_stay_within_reach_of_a_strained_structure(seed, number, kind):
    rng = np.random.default_rng(seed)
    cell, protons = structure(rng, number, kind)
    one = reduced(cell, protons)
    other = reduced(*disguised(rng, cell, protons, TOLERANCE, strain=TOLERANCE))
    apart = np.abs(described(*one) - described(*other))
    lattice, distances = reach(number)
    assert np.linalg.norm(apart[:7]) <= lattice * TOLERANCE
    assert np.linalg.norm(apart[7:]) <= distances * TOLERANCE


@pytest.mark.parametrize("kind", ["cubic", "triclinic"])
def test_other_structures_are_not_taken_for_the_same(kind):
    rng = np.random.default_rng(4)
    for _ in range(20):
        cell, protons = structure(rng, 8, kind)
        one = reduced(cell, protons)
        assert aligned_rms(*one, *reduced(*disguised(rng, cell, protons, 3 * TOLERANCE)), TOLERANCE) is None
        assert aligned_rms(*one, *reduced(cell, structure(rng, 8, kind)[1]), TOLERANCE) is None
        assert aligned_rms(*one, *reduced(1.1 * cell, 1.1 * protons), TOLERANCE) is None


def test_duplicates_are_reported_across_splits_only(tmp_path):
    rng = np.random.default_rng(5)
    records = []
    for i in range(30):
        cell, protons = structure(rng, (4, 8)[i % 2], "triclinic")
        for copy, split in enumerate(("train", "train", "held-out-phase")):
            if copy == 0 or i in (3, 4, 10):
                arrays = disguised(rng, cell, protons, 0.01 * copy)
                records.append(
                    Record(
                        configuration=Configuration(*arrays, twist=rng.random(3)), identifier=f"{i}-{copy}", split=split
                    )
                )
    dataset = write_dataset(tmp_path / "set", records)
    found = find_duplicates(dataset, 0.04)
    names = {frozenset((dataset.identifiers[d.first], dataset.identifiers[d.second])) for d in found}
    assert names == {frozenset((f"{i}-{copy}", f"{i}-2")) for i in (3, 4, 10) for copy in (0, 1)}
    assert [d.rms for d in found] == sorted(d.rms for d in found)
    alone = write_dataset(tmp_path / "alone", [replace(record, split="train") for record in records])
    assert find_duplicates(alone, 0.04) == []


@pytest.mark.parametrize("tolerance", [0.0, -1.0, 0.5, float("nan")])
def test_a_senseless_tolerance_is_an_input_error(tmp_path, records, tolerance):
    with pytest.raises(InputError, match="tolerance"):
        find_duplicates(write_dataset(tmp_path / "set", records), tolerance)
