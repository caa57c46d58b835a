"""Small sets of configurations and files that the tests of the data layer share."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from fnqs.configuration import make_configuration
from fnqs_data.store.record import Record


def _record(i: int, number: int, phase: str = "bcc", **labels) -> Record:
    rng = np.random.default_rng(i)
    places = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)[:number]
    cell = 4.0 * np.eye(3) + rng.normal(scale=0.1, size=(3, 3))
    protons = 2.0 * places + rng.normal(scale=0.1, size=(number, 3))
    return Record(
        configuration=make_configuration(cell, protons, 0.2 * rng.random(3)),
        identifier=f"{phase}-{i}",
        phase=phase,
        **labels,
    )


@pytest.fixture
def make_record():
    """A function (i, N, phase, **labels) that makes a random but reproducible record."""
    return _record


@pytest.fixture
def records() -> list[Record]:
    """Forty records: N = 2, 4 and 8, two phases, some labelled."""
    made = []
    for i in range(40):
        number = (2, 4, 8, 8)[i % 4]
        forces = np.random.default_rng(i).normal(size=(number, 3))
        labels = {"energy": -0.5 * number, "forces": forces, "corrected": True} if i % 3 == 0 else {}
        split = "held-out-density" if i >= 36 else "train"
        labels["trajectory"] = f"run-{i // 4}" if i % 2 else ""
        made.append(_record(i, number, ("bcc", "pa3")[i % 2], split=split, **labels))
    return made


@pytest.fixture
def make_atoms():
    """A function that makes a valid ASE frame of N hydrogen atoms with energy (eV) and forces (eV/Å)."""

    def make(number: int = 4, symbol: str = "H", energy: float = -50.0) -> Atoms:
        places = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)[:number]
        atoms = Atoms(
            [symbol] + ["H"] * (number - 1),
            positions=2.0 * units.Bohr * places,
            cell=4.0 * units.Bohr * np.eye(3),
            pbc=True,
        )
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.full((number, 3), 0.25))
        return atoms

    return make
