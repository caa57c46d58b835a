"""The Python door: the numbers of the command, and what it refuses."""

import json
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from ase import Atoms, units

import fnqs
import fnqs_eval
from fnqs_eval import load_model
from fnqs_eval.calculator import FoundationCalculator
from fnqs_eval.commands import main

BCC = """2
Lattice="1.408 0 0 0 1.408 0 0 0 1.408" Properties=species:S:1:pos:R:3 pbc="T T T"
H 0.0 0.0 0.0
H 0.704 0.704 0.704
"""


@pytest.fixture(scope="module")
def model():
    return load_model("foundation")


@pytest.fixture(scope="module")
def bcc():
    return fnqs.make_configuration(2.66 * np.eye(3), [[0.0, 0.0, 0.0], [1.33, 1.33, 1.33]])


def test_everything_promised_is_there():
    for package in (fnqs, fnqs_eval):
        assert all(getattr(package, name) is not None for name in package.__all__)
        assert set(package.__all__) <= set(dir(package))
        with pytest.raises(AttributeError, match="nothing"):
            getattr(package, "nothing")  # noqa: B009 (asked for as a user would mistype it)


def test_energies_are_those_of_the_command(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bcc.extxyz").write_text(BCC)
    options = ["--walkers", "16", "--measurements", "16", "--output", "e.json"]
    assert main(["energies", "foundation", "--configurations", "bcc.extxyz", *options]) == 0
    [written] = json.loads((tmp_path / "e.json").read_text())["results"]
    [found] = model.energies(tmp_path / "bcc.extxyz", walkers=16, measurements=16)
    assert found.energy_per_atom == written["energy_per_atom"]
    assert found.error_per_atom == written["error_per_atom"]
    assert found.reliability == written["reliability"]


def test_psi_of_one_walker_and_of_many(model, bcc):
    electrons = np.random.default_rng(0).normal(size=(5, 2, 3))
    phase, log = model.log_psi(bcc, electrons)
    one_phase, one_log = model.log_psi(bcc, electrons[3])
    assert phase.shape == log.shape == (5,)
    assert float(one_phase) == float(phase[3])
    assert float(one_log) == pytest.approx(float(log[3]), abs=1e-6)  # float32 network
    shifted = electrons.copy()
    shifted[:, 0, 0] += 2.66  # one electron by a lattice vector: the same at Gamma
    np.testing.assert_allclose(model.log_psi(bcc, shifted)[1], log, atol=1e-6)
    assert model.local_energy(bcc, electrons).shape == (5,)
    with pytest.raises(fnqs.InputError, match=r"give \(2, 3\) or \(n, 2, 3\)"):
        model.log_psi(bcc, electrons[:, :1])


def test_float64_off_is_refused():
    program = (
        "import numpy as np, jax, fnqs\n"
        "c = fnqs.make_configuration(4.0 * np.eye(3), [[0, 0, 0], [0, 0, 1.4]]); m = fnqs.ModelConfig()\n"
        "try: fnqs.WaveFunction(m).encode({'encoder': {}}, fnqs.make_system(c, m))\n"
        "except fnqs.InputError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert "call fnqs.configure()" in said.stdout, said.stderr


def test_ase_calculator(model, bcc):
    atoms = Atoms("H2", cell=bcc.cell * units.Bohr, positions=bcc.protons * units.Bohr, pbc=True)
    atoms.calc = FoundationCalculator(model, error=0.05, walkers=16)
    [found] = model.energies(bcc, error=0.05, walkers=16)
    energy = atoms.get_potential_energy()
    # the cell goes through angstrom and back, so its walkers have other random numbers
    error = np.hypot(found.error_per_atom, atoms.calc.results["energy_error"] / 2 / units.Hartree)
    assert abs(energy / 2 / units.Hartree - found.energy_per_atom) < 5 * error
    with pytest.raises(fnqs.InputError, match="hydrogen"):
        Atoms(
            "He2", cell=4 * np.eye(3), positions=[[0, 0, 0], [0, 0, 2]], pbc=True, calculator=atoms.calc
        ).get_potential_energy()


def test_ase_calculator_has_forces_and_stress(model, bcc):
    atoms = Atoms("H2", cell=bcc.cell * units.Bohr, positions=bcc.protons * units.Bohr, pbc=True)
    atoms.calc = FoundationCalculator(model, error=0.05, walkers=16)
    forces, stress = atoms.get_forces(), atoms.get_stress()
    results: dict[str, Any] = atoms.calc.results
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-6)
    assert stress.shape == results["stress_error"].shape == (6,)
    assert np.all(np.abs(forces) < 6 * results["forces_error"])  # a crystal has none
    assert np.trace(atoms.get_stress(voigt=False)) > 0  # two electrons at k = 0 only: the cell would shrink


def test_finetuned_model_is_another_one(model, bcc, tmp_path):
    before = jax.tree.map(np.array, model.params)
    tuned = model.finetune([bcc], tmp_path / "tuned", steps=1, walkers=8, together=1)
    changed = jax.tree.leaves(jax.tree.map(lambda x, y: not np.array_equal(x, y), tuned.params, model.params))
    assert any(changed)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, model.params)))
    with pytest.raises(fnqs.InputError, match="not empty"):
        model.finetune([bcc], tmp_path / "tuned", steps=1)
