"""fnqs-evaluate energies: twists, resuming after kill -9, and what is refused."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import ase.io
import jax
import numpy as np
import pytest
from ase import Atoms, units

from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_data.readers import read_records
from fnqs_eval.commands import main as evaluate_main
from fnqs_train.checkpointing.saving import Checkpoints
from fnqs_train.config import load_config, save_config

CONFIG = """name = "try"
steps = 2
data.recipe = "absent.toml"
log.wandb = "disabled"
model = { features = 8, vectors = 4, amplitudes = 4, radial_functions = 4, proton_rounds = 1 }
"""
QUICK = ["--walkers", "64", "--error", "1e-6", "--measurements", "32", "--equilibration", "50"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A run that was never trained, and three configurations with energies in one file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "try.toml").write_text(CONFIG)
    config = load_config("try.toml")
    edge = 1.4 * (8 * np.pi / 3) ** (1 / 3) * units.Bohr
    cube = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    frames = [Atoms("H2", scaled_positions=cube * x, cell=edge * np.eye(3), pbc=True) for x in (1.0, 0.97, 0.94)]
    ase.io.write("mine.extxyz", frames)
    system = make_system(read_records("mine.extxyz")[0].configuration, config.model)
    params = jax.jit(WaveFunction(config.model).init)(jax.random.key(0), system)
    with Checkpoints("run") as checkpoints:
        checkpoints.save(2, params, {"count": np.zeros(1)}, {"n002": np.zeros(1)}, {"data_fingerprint": "x"})
    save_config(config, "run")
    return tmp_path


def energies(*options):
    return evaluate_main(["energies", "run", "--configurations", "mine.extxyz", *QUICK, *options])


@pytest.mark.slow
def test_a_grid_of_twists_and_its_average(place, capsys):
    assert energies("--twists", "2x1x1", "--frames", "0:2", "--relative", "lowest") == 0
    printed = capsys.readouterr().out
    assert "average" in printed
    assert "both spins carry the same twist" in printed
    assert "the training set is not on this machine" in printed
    document = json.loads((place / "run" / "energies-mine.json").read_text())
    assert document["provenance"]["twists"] == "2x1x1 Monkhorst-Pack, 2 twists as 1 up to sign"
    rows = document["results"]
    assert [row["twist"] for row in rows] == [[0.25, 0, 0], None, [0.25, 0, 0], None]
    assert [row["weight"] for row in rows] == [1, 1, 1, 1]
    assert rows[0]["energy_per_atom"] == rows[1]["energy_per_atom"]
    assert min(rows[1]["relative_energy"], rows[3]["relative_energy"]) == 0
    with open(place / "run" / "energies-mine.csv") as file:
        assert len(list(csv.DictReader(file))) == 4
    assert len(read_records(place / "run" / "energies-mine.extxyz")) == 2
    assert not list((place / "run").glob("*.jsonl"))


@pytest.mark.parametrize(("spin", "expected"), [("singlet", 0), ("triplet", 2)])
def test_the_spin_asked_for_is_measured(place, capsys, spin, expected):
    """One electron of each spin: psi is even or odd, so every sample is the number itself."""
    assert energies("--spin", spin, "--frames", "0") == 0
    assert "⟨S²⟩" in capsys.readouterr().out
    document = json.loads((place / "run" / "energies-mine.json").read_text())
    assert document["results"][0]["spin_squared"] == pytest.approx(expected, abs=1e-3)  # float32
    assert document["provenance"]["spin"].startswith(f"unpolarised, {spin}")


@pytest.mark.slow
def test_killed_and_resumed_no_configuration_is_lost_or_repeated(place, capsys):
    """Killed where two devices had sampled one configuration each, resumed and repeated on one."""
    script = (
        "import sys, time, jax, fnqs_eval.energies.journal as j; from fnqs_eval import commands\n"
        "from fnqs_eval.energies import energy; energy.TOGETHER = 128\n"
        "commands.use_every_core = lambda: jax.config.update('jax_num_cpu_devices', 2)\n"
        "append = j.Journal.append\n"
        "def slow(self, results): append(self, results); time.sleep(60)\n"
        "j.Journal.append = slow\n"
        "commands.main(sys.argv[1:])"
    )
    command = ["energies", "run", "--configurations", "mine.extxyz", *QUICK]
    process = subprocess.Popen([sys.executable, "-c", script, *command], stderr=subprocess.DEVNULL)
    journal = place / "run" / "energies-mine.json.journal.jsonl"
    for _ in range(6000):  # ends as soon as there is a result; a busy machine compiles for minutes
        if journal.exists() and journal.read_bytes().count(b"\n") == 3:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = journal.read_bytes()
    assert kept.count(b"\n") == 3  # the fingerprint and two results
    with open(journal, "ab") as file:
        file.write(b'{"place": 2, "resu')  # as a kill within the write would leave it
    assert energies("--seed", "1") == 2
    assert "other settings" in capsys.readouterr().err
    assert energies() == 0
    assert "2 of 3 energies are in" in capsys.readouterr().err
    assert not journal.exists()
    rows = json.loads((place / "run" / "energies-mine.json").read_text())["results"]
    assert [row["identifier"] for row in rows] == [f"mine.extxyz#{i}" for i in range(3)]
    found = [json.loads(line)["result"]["energy_per_atom"] for line in kept.split(b"\n")[1:3]]
    assert [row["energy_per_atom"] for row in rows[:2]] == found
    assert energies() == 0
    again = json.loads((place / "run" / "energies-mine.json").read_text())["results"]
    energy, error = (np.array([row[key] for row in again]) for key in ("energy_per_atom", "error_per_atom"))
    assert error.min() > 1e-3
    # The same walkers, moves and energies on any number of devices, rounded otherwise.
    np.testing.assert_allclose([row["energy_per_atom"] for row in rows], energy, atol=1e-5)
    journal.write_bytes(kept)
    assert energies("--seed", "1", "--restart") == 0


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--twists", "0x2x2"], "each number of a grid is 1 or more"),
        (["--twists", "garbage"], "give a grid (4x4x4)"),
        (["--twists", ""], "give a grid (4x4x4)"),
        (["--twists", "1.5,0,0"], "above -0.5 and below 1"),
        (["--twists", "random:0"], "1 to 10000"),
        (["--twists", "0.25,0,0", "--spin", "triplet"], 'spin = "triplet" is offered at twist (0, 0, 0) only'),
        (["--relative", "highest"], "invalid choice: 'highest'"),
        (["--output", "energies.csv"], "name the JSON file"),
    ],
)
def test_one_sentence_and_exit_code_2(place, capsys, options, wanted):
    before = sorted(place.rglob("*"))
    assert energies(*options) == 2
    message = capsys.readouterr().err
    assert wanted in message
    assert message.startswith("fnqs-evaluate: ")
    assert message.count("\n") == 1
    assert sorted(place.rglob("*")) == before
