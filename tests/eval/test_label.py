"""Labels for other models: what ASE and our own reader find in the file, and the command that is killed."""

from typing import Any

import ase.io
import numpy as np
import pytest
from ase import units

from fnqs.configuration import make_configuration
from fnqs.errors import InputError
from fnqs_data.readers import read_records
from fnqs_data.store.record import Record
from fnqs_eval.commands import main
from fnqs_eval.observables import observe
from fnqs_eval.observables.label import labelled_atoms, write_labels
from fnqs_eval.observables.result import ObservablesResult, Quantity

RECORD = Record(
    configuration=make_configuration(3.1 * np.eye(3), [[0, 0, 0], [1.5, 1.5, 1.4]]), identifier="one", phase="bcc"
)
FORCES = np.array([[0.1, -0.2, 0.3], [-0.1, 0.2, -0.3]])
STRESS = np.array([0.01, 0.02, 0.03, 0.001, 0.002, 0.003])


def result(**changes):
    values = {
        "identifier": "one",
        "number": 2,
        "density_parameter": 3.1 * (3 / (8 * np.pi)) ** (1 / 3),
        "volume": 3.1**3,
        "phase": "bcc",
        "twist": (0.0, 0.0, 0.0),
        "quantities": {
            "energy": Quantity("Ha per atom", -0.51, 0.001),
            "forces": Quantity("Ha/bohr", FORCES, np.full((2, 3), 0.01)),
            "stress": Quantity("Ha/bohr^3", STRESS, np.full(6, 1e-4)),
        },
        "finite_size": [{"total": 0.02}, {"total": 0.03}],
    }
    return ObservablesResult(**values | changes)


@pytest.mark.parametrize("prefix", ["", "REF_"])
def test_ase_reads_back_what_was_measured(tmp_path, prefix):
    path = tmp_path / "labelled.extxyz"
    write_labels(path, [labelled_atoms(RECORD, result(), "run step 1", prefix=prefix)])
    frames: Any = ase.io.read(path, ":")
    [atoms] = frames
    assert atoms.get_potential_energy() == pytest.approx(-1.02 * units.Hartree, rel=1e-8)
    np.testing.assert_allclose(atoms.get_forces(), FORCES * units.Hartree / units.Bohr, atol=1e-7)
    np.testing.assert_allclose(atoms.get_stress(), STRESS * units.Hartree / units.Bohr**3, atol=1e-8)
    np.testing.assert_allclose(atoms.arrays["forces_error"], 0.01 * units.Hartree / units.Bohr, atol=1e-7)
    assert atoms.info["energy_error"] == pytest.approx(0.002 * units.Hartree)
    assert atoms.info["finite_size_correction"] == pytest.approx(0.05 * units.Hartree)
    assert "run step 1" in atoms.info["method"]
    if prefix:
        np.testing.assert_allclose(atoms.arrays["REF_forces"], atoms.get_forces(), atol=1e-7)
        assert atoms.info["REF_energy"] == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(atoms.info["REF_stress"], atoms.get_stress(), atol=1e-8)


def test_our_reader_has_the_same_labels(tmp_path):
    path = tmp_path / "labelled.extxyz"
    write_labels(path, [labelled_atoms(RECORD, result(), "run step 1")])
    [record] = read_records(path)
    assert record.energy == pytest.approx(-1.02, rel=1e-7)
    assert record.forces is not None
    np.testing.assert_allclose(record.forces, FORCES, atol=1e-7)
    assert record.stress is not None
    x, y, z, yz, xz, xy = STRESS
    np.testing.assert_allclose(record.stress, [[x, xy, xz], [xy, y, yz], [xz, yz, z]], atol=1e-8)


def test_nothing_is_labelled_with_what_is_not_finite():
    lost = result().quantities | {"energy": Quantity("Ha per atom", float("nan"), None)}
    with pytest.raises(InputError, match="no finite energy"):
        labelled_atoms(RECORD, result(quantities=lost), "run")


class Stopped(BaseException):
    """Stands for a kill."""


TWO = """2
Lattice="1.6 0 0 0 1.6 0 0 0 1.6" Properties=species:S:1:pos:R:3 pbc="T T T"
H 0.0 0.0 0.0
H 0.8 0.8 0.74
"""


@pytest.mark.slow
def test_the_command_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.extxyz").write_text(TWO + TWO.replace("0.74", "0.7"))
    command = ["label", "foundation", "--configurations", "two.extxyz", "--walkers", "16", "--measurements", "8"]
    command += ["--error", "1e-9", "--output", "labelled.extxyz"]

    whole, calls = observe.sample, []

    def only_once(*arguments):
        if calls:
            raise Stopped
        calls.append(arguments)
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(observe, "sample", only_once)
        with pytest.raises(Stopped):
            main(command)
    assert (tmp_path / "labelled.extxyz.journal.jsonl").read_bytes().count(b"\n") == 2
    assert not (tmp_path / "labelled.extxyz").exists()
    assert main(command) == 0
    assert "1 of 2 configurations are in" in capsys.readouterr().err
    frames: Any = ase.io.read("labelled.extxyz", ":")
    assert len(frames) == 2
    for atoms in frames:
        np.testing.assert_allclose(atoms.get_forces().sum(axis=0), 0, atol=1e-6)  # digits of the file
        assert atoms.info["energy_error"] > 0
    assert main([*command, "--prefix", "a b"]) == 2
    assert "letters, digits" in capsys.readouterr().err
