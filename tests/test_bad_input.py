"""Every bad input gives exit code 2 and one sentence on stderr, and leaves nothing behind."""

import errno
import os
import re

import ase.io
import jax
import numpy as np
import pytest
from ase import Atoms, units

from fnqs_data.generate.build import cached_dataset
from fnqs_data.store import shards
from fnqs_eval.commands import main as evaluate_main
from fnqs_train.checkpointing.saving import Checkpoints
from fnqs_train.commands import finetune_main, train_main
from fnqs_train.config import load_config, save_config
from fnqs_train.loading import params_template
from fnqs_train.run_folder import used_alone

RECIPE = 'name = "set"\n[[family]]\nphase = "bcc"\nnumber = [2]\nr_s = 1.4\ncount = 3\n'
CONFIG = """name = "try"
steps = 2
data.recipe = "set.toml"
log.wandb = "disabled"
model = { features = 8, vectors = 4, amplitudes = 4, radial_functions = 4, proton_rounds = 1 }
"""
COMMANDS = {"fnqs-train": train_main, "fnqs-finetune": finetune_main, "fnqs-evaluate": evaluate_main}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a config, a recipe, a trained run in "run" and good configurations in "good.extxyz"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FNQS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set.toml").write_text(RECIPE)
    (tmp_path / "try.toml").write_text(CONFIG)
    ase.io.write(tmp_path / "good.extxyz", [good_atoms()] * 2)
    config = load_config("try.toml")
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params_template(config))
    with Checkpoints("run") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, params, {"count": np.zeros(1)}, {"n002": np.zeros(1)}, {"data_fingerprint": "x"})
    save_config(config, "run")
    cached_dataset(tmp_path / "set.toml")
    return tmp_path


def good_atoms(symbols: str = "H2") -> Atoms:
    number = len(Atoms(symbols))
    positions = 2.0 * units.Bohr * np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])[:number]
    return Atoms(symbols, positions=positions, cell=4.0 * units.Bohr * np.eye(3), pbc=True)


@pytest.fixture
def failing(place, capsys, recwarn):
    """A function that runs a command which must fail cleanly, and returns its sentence."""

    def run(command: str, *arguments: object) -> str:
        before = listing(place)
        capsys.readouterr()
        assert COMMANDS[command]([str(argument) for argument in arguments]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"{command}: ")
        assert message.count("\n") == 1, message
        assert message.endswith("\n")
        assert "Traceback" not in message
        assert [str(warning.message) for warning in recwarn] == []  # they would stand on stderr, too
        assert listing(place) == before
        return message

    return run


def listing(folder):
    """All files with their sizes, but not the lock and the compiled programs of the cache."""
    return {
        path.relative_to(folder): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and "cache" not in path.relative_to(folder).parts
    }


def both(failing, file, *options):
    """Sentences of the two commands that read configurations."""
    return [
        failing("fnqs-evaluate", "energies", "run", "--configurations", file, *options),
        failing("fnqs-finetune", "run", "--configurations", file, *options),
    ]


def test_missing_and_unreadable_files(place, failing):
    for sentence in both(failing, "none.extxyz"):
        assert "none.extxyz: there is no such file" in sentence
    (place / "noise.extxyz").write_bytes(bytes(range(256)) * 4)
    (place / "empty.extxyz").touch()
    (place / "text.xyz").write_text("2\nno lattice\nH 0 0\n")
    for name in ("noise.extxyz", "empty.extxyz", "text.xyz"):
        for sentence in both(failing, name):
            assert name in sentence
    (place / "folder").mkdir()
    for sentence in both(failing, "folder"):
        assert "folder is a folder without manifest.json; give a file or a data set folder" in sentence


def no_cell(atoms):
    atoms.cell = None
    atoms.pbc = False


def helium(atoms):
    atoms.symbols[1] = "He"


def odd(atoms):
    del atoms[-1]


def too_close(atoms):
    atoms.positions[1] = atoms.positions[0] + [0, 0, 0.29 * units.Bohr]


def not_a_number(atoms):
    atoms.positions[0, 1] = np.nan


def turned_too_far(atoms):
    atoms.info["twist"] = [0.0, 1.7, 0.0]


def polarised(atoms):
    atoms.set_initial_magnetic_moments([1.0, 1.0, -1.0, 1.0])


def charged(atoms):
    atoms.info["charge"] = 1


def thin(atoms):
    atoms.set_cell(np.diag([0.1, 1.0, 1.0]) @ atoms.cell.array * 20)


@pytest.mark.parametrize(
    ("spoil", "fault", "cure"),
    [
        (turned_too_far, "the twist 0, 1.7, 0 is out of range", "above -0.5 and below 1"),
        (polarised, "its magnetic moment is 2", "as many spins up as down"),
        (charged, "its charge is 1", "neutral cells only"),
        (thin, "the cell is too thin: its smallest height", "under 0.25 of the cube root of its volume"),
        (no_cell, "there is no cell", "give a Lattice"),
        (helium, "it contains He", "remove other species"),
        (odd, "N = 3 protons", "fnqs needs an even number"),
        (too_close, "0.290 bohr apart", "are the units right?"),
        (not_a_number, "the proton positions contain NaN", ""),
    ],
)
def test_bad_frames_are_named(place, failing, spoil, fault, cure):
    bad = good_atoms("H4")
    spoil(bad)
    ase.io.write(place / "some.extxyz", [good_atoms("H4"), bad])
    for sentence in both(failing, "some.extxyz"):
        assert "some.extxyz: frame 1: " in sentence
        assert fault in sentence
        assert cure in sentence


def test_frames_that_are_not_there(place, failing):
    for frames, wanted in (
        ("7", "good.extxyz"),
        ("one", "--frames one: give one number"),
        ("1:1", "good.extxyz: the file holds no such frames"),
    ):
        for sentence in both(failing, "good.extxyz", "--frames", frames):
            assert wanted in sentence


def test_bad_configs(place, failing):
    assert "none.toml: no such file" in failing("fnqs-train", "none.toml")
    sentence = failing("fnqs-train", "try.toml", "--set", "optimizer.dampng=1")
    assert "try.toml: unknown key optimizer.dampng; did you mean optimizer.damping?" in sentence
    (place / "try.toml").write_text(CONFIG + "stepps = 3\n")
    assert "try.toml: unknown key stepps; did you mean steps?" in failing("fnqs-train", "try.toml")
    (place / "try.toml").write_text(CONFIG.replace("set.toml", "nowhere.toml"))
    assert "nowhere.toml is neither beside the config nor" in failing("fnqs-train", "try.toml")
    (place / "try.toml").write_text(CONFIG)
    (place / "set.toml").write_text(RECIPE.replace("r_s", "rs"))
    sentence = failing("fnqs-train", "try.toml")
    assert "set.toml" in sentence
    assert "did you mean 'r_s'" in sentence


def test_bad_options(failing):
    assert "the following arguments are required: CONFIG (see `fnqs-train --help`)" in failing("fnqs-train")
    walkers = ["energies", "run", "--configurations", "good.extxyz", "--walkers", "0"]
    assert "--walkers: '0' is not a whole number above zero" in failing("fnqs-evaluate", *walkers)
    assert "--configurations" in failing("fnqs-finetune", "run")
    assert "unrecognized arguments: --step 3" in failing("fnqs-train", "try.toml", "--step", "3")


def test_too_few_walkers(failing):
    sentence = failing("fnqs-train", "try.toml", "--set", "sampling.walkers_per_configuration=1")
    assert "sampling.walkers_per_configuration is 1 but must be 2 or more" in sentence


def test_a_part_that_cannot_be_trained(place, failing):
    tune = ["run", "--configurations", "good.extxyz", "--output", "tuned"]
    assert "--train: invalid choice: 'head'" in failing("fnqs-finetune", *tune, "--train", "head")
    assert "--rank: '0' is not a whole number above zero" in failing("fnqs-finetune", *tune, "--rank", "0")
    assert "tuned: sampling.walkers_per_configuration is 1" in failing("fnqs-finetune", *tune, "--walkers", "1")


def test_a_twist_outside_its_range(place, failing):
    given = ["energies", "run", "--configurations", "good.extxyz", "--twists"]
    assert "above -0.5 and below 1" in failing("fnqs-evaluate", *given, "1.5,0,0")
    (place / "set.toml").write_text(RECIPE + "twist = [0.0, 1.5, 0.0]\n")
    assert "twist = [0.0, 1.5, 0.0]; fractions" in failing("fnqs-train", "try.toml")


def test_an_empty_split(failing):
    sentence = failing("fnqs-train", "try.toml", "--set", "data.split=held-out-phase")
    assert "no configurations with split 'held-out-phase' to train on" in sentence


def test_missing_checkpoints(place, failing):
    (place / "empty").mkdir()
    given = ["--configurations", "good.extxyz"]
    for name, wanted in (("nowhere", "nowhere: no such run folder"), ("empty", "empty: no checkpoint here")):
        assert wanted in failing("fnqs-evaluate", "energies", name, *given)
        assert wanted in failing("fnqs-evaluate", "transfer", name)
        assert wanted in failing("fnqs-finetune", name, *given)
    assert "run/checkpoints/3: no such" in failing("fnqs-evaluate", "energies", "run/checkpoints/3", *given)


def test_a_checkpoint_of_another_model(place, failing):
    text = (place / "run" / "config.toml").read_text()
    (place / "run" / "config.toml").write_text(text.replace("features = 8", "features = 16"))
    for sentence in both(failing, "good.extxyz"):
        assert "checkpoint of another model: params" in sentence
        assert "use the config it was trained with" in sentence


def test_flipped_bits(place, failing):
    largest = []
    for step in ("1", "2"):
        files = [path for path in (place / "run" / "checkpoints" / step / "params").rglob("*") if path.is_file()]
        path = max(files, key=lambda path: path.stat().st_size)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        largest.append(path.name)
    given = ["--configurations", "good.extxyz"]
    one = failing("fnqs-evaluate", "energies", "run/checkpoints/2", *given)
    assert "run/checkpoints/2: the checkpoint is damaged" in one
    assert largest[1] in one
    for sentence in both(failing, "good.extxyz"):
        assert "every checkpoint is damaged" in sentence


def test_run_folders_that_exist(place, failing):
    assert "there is a run already, at step 2; go on with --resume" in failing(
        "fnqs-train", "try.toml", "--output", "run", "--set", "steps=5"
    )
    sentence = failing("fnqs-train", "try.toml", "--output", "run", "--resume", "--set", "optimizer.damping=0.1")
    assert "optimizer.damping: 0.001 -> 0.1" in sentence
    given = ["--configurations", "good.extxyz", "--output"]
    assert "run: the folder is not empty; go on with what is there with --resume" in failing(
        "fnqs-finetune", "run", *given, "run"
    )
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").touch()
    assert "mine: not a run folder" in failing("fnqs-train", "try.toml", "--output", "mine", "--restart")


def test_a_folder_that_another_command_uses(place, failing):
    """The second command says who holds the folder, and touches nothing of it."""
    with used_alone(place / "run", "fnqs-train"):
        when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
        who = rf"run: process {os.getpid()} on \S+ since {when} \(fnqs-train.*\) uses this folder"
        for how in ("--resume", "--restart"):
            assert re.search(who, failing("fnqs-train", "try.toml", "--output", "run", how))
        assert re.search(who, failing("fnqs-finetune", "run", "--resume"))
    with used_alone(place / "run" / "transfer", "fnqs-evaluate"):
        assert f"transfer: process {os.getpid()} on" in failing("fnqs-evaluate", "transfer", "run")
    assert not (place / "run" / "in-use").exists()


def test_fine_tunings_that_cannot_be_resumed(place, failing):
    given = ["--configurations", "good.extxyz", "--output", "tuned"]
    assert "tuned: there is no fine-tuning to resume" in failing("fnqs-finetune", "run", *given, "--resume")
    assert "run: not the folder of a fine-tuning" in failing("fnqs-finetune", "run", "--resume")
    assert "required: --configurations" in failing("fnqs-finetune", "run")


def test_nothing_held_out(failing):
    sentence = failing("fnqs-evaluate", "transfer", "run")
    assert "nothing is held out as 'held-out-density'" in sentence
    assert "[held_out]" in sentence


def test_a_full_disk_while_building(place, monkeypatch, capsys):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (place / "set.toml").write_text("seed = 1\n" + RECIPE)  # not built before
    before = listing(place)
    (built,) = (path for path in (place / "cache" / "datasets").iterdir() if path.is_dir())
    monkeypatch.setattr(shards.ShardWriter, "write", full)
    assert train_main(["try.toml"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]  # a progress bar stands before it
    assert message.startswith("fnqs-train: no space left on device; free some space")
    assert listing(place) == before
    assert [path for path in (place / "cache" / "datasets").iterdir() if path.is_dir()] == [built]


def test_a_full_disk_while_preparing_to_fine_tune(place, failing, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards.ShardWriter, "write", full)
    given = ["--configurations", "good.extxyz", "--output", "tuned"]
    assert "no space left on device" in failing("fnqs-finetune", "run", *given)


def test_a_folder_that_cannot_be_written(place, failing):
    (place / "taken").touch()
    sentence = failing("fnqs-train", "try.toml", "--output", "taken/run")
    assert "taken/run: not a directory" in sentence
