"""Fine-tuning that is stopped, killed, moved and resumed ends where an undisturbed one does."""

import shutil
import signal

import ase.io
import jax
import numpy as np
import pytest
from ase import Atoms, units

from fnqs_eval.commands import main as evaluate_main
from fnqs_eval.energies.evaluate import known_dataset
from fnqs_train import loop
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_meta, restore_params
from fnqs_train.checkpointing.saving import Checkpoints
from fnqs_train.commands import finetune_main, train_main
from fnqs_train.config import load_config, save_config
from fnqs_train.finetune import SAVED_EVERY
from fnqs_train.loading import params_template
from fnqs_train.monitoring.metrics import read_metrics
from fnqs_train.run_folder import LOCK_NAME

CONFIG = """name = "parent"
steps = 2
data.recipe = "set.toml"
log.wandb = "disabled"
model = { features = 8, vectors = 4, amplitudes = 4, radial_functions = 4, proton_rounds = 1 }
sampling = { sweeps = 5, equilibration_sweeps = 20 }
"""
RECIPE = 'name = "set"\n[[family]]\nphase = "bcc"\nnumber = [2]\nr_s = 1.4\ncount = 3\n'
TUNE = ["parent", "--configurations", "mine.extxyz", "--walkers", "32", "--together", "2", "--steps", "24"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to work in, with a run that saved its parameters, and two configurations."""
    folder = tmp_path_factory.mktemp("tune")
    edge = 2.7 * units.Bohr
    cube = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    frames = [Atoms("H2", scaled_positions=cube * x, cell=edge * np.eye(3), pbc=True) for x in (1.0, 0.95)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FNQS_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        ase.io.write("mine.extxyz", frames)
        ase.io.write("other.extxyz", frames[:1])
        (folder / "set.toml").write_text(RECIPE)
        (folder / "try.toml").write_text(CONFIG)
        config = load_config("try.toml")
        shapes = jax.tree.leaves(params_template(config))
        rng = np.random.default_rng(0)
        leaves = [rng.normal(scale=0.1, size=leaf.shape).astype(leaf.dtype) for leaf in shapes]
        params = jax.tree.unflatten(jax.tree.structure(params_template(config)), leaves)
        with Checkpoints("parent") as checkpoints:
            checkpoints.save(2, params, {"count": np.zeros(1)}, {"n002": np.zeros(1)}, {"data_fingerprint": "x"})
        save_config(config, "parent")
        yield folder


@pytest.fixture(scope="module")
def whole(place):
    """A fine-tuning that nothing disturbed."""
    assert finetune_main([*TUNE, "--output", "whole"]) == 0
    return place / "whole"


def energies(folder):
    return [(row["step"], row["energy_per_atom"]) for row in read_metrics(folder)]


def assert_same_end(left, right):
    assert energies(left) == energies(right)
    for a, b in zip(jax.tree.leaves(restore_params(left)), jax.tree.leaves(restore_params(right)), strict=True):
        np.testing.assert_array_equal(a, b)


class Killed(BaseException):
    """Stands for the end of the process: nothing is saved or said after it."""


def end_at(monkeypatch, step, how):
    """Let something happen after so many visits of the walkers."""
    take, visits = loop.Population.take, []

    def taking(self, number, indices):
        visits.append(1)
        if len(visits) == step:
            how()
        return take(self, number, indices)

    monkeypatch.setattr(loop.Population, "take", taking)


def kill():
    raise Killed


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_saves_and_recommends_what_exists(place, whole, monkeypatch, capsys, name):
    folder = f"stopped-{name}"
    end_at(monkeypatch, 3, lambda: signal.raise_signal(getattr(signal, name)))
    assert finetune_main([*TUNE, "--output", folder]) == 130
    monkeypatch.undo()
    said = capsys.readouterr()
    assert "stopped at step 3 as asked, with everything saved\n" in said.out
    assert said.out.endswith("go on with the same command and --resume\n")
    assert said.err == "fnqs-finetune: interrupted\n"
    assert resolve_checkpoint(folder).step == 3
    assert not (place / folder / LOCK_NAME).exists()
    if name == "SIGINT":
        assert finetune_main([*TUNE, "--output", folder, "--resume"]) == 0
        assert_same_end(place / folder, whole)


def test_killed_moved_and_resumed_from_its_folder_alone(place, whole, monkeypatch, capsys):
    end_at(monkeypatch, SAVED_EVERY + 4, kill)
    with pytest.raises(Killed):
        finetune_main([*TUNE, "--output", "killed"])
    monkeypatch.undo()
    assert resolve_checkpoint("killed").step == SAVED_EVERY
    (place / "far").mkdir()
    shutil.move("killed", "far/moved")
    shutil.move("mine.extxyz", "far/mine.extxyz")
    try:
        assert finetune_main(["far/moved", "--resume"]) == 0
        assert f"2 configurations, from step {SAVED_EVERY} on to 24" in capsys.readouterr().out
        assert_same_end(place / "far" / "moved", whole)
        assert restore_meta("far/moved")["parent"] == "parent step 2"
    finally:
        shutil.move("far/mine.extxyz", "mine.extxyz")


def test_killed_before_anything_was_saved(place, whole, monkeypatch, capsys):
    end_at(monkeypatch, 2, kill)
    with pytest.raises(Killed):
        finetune_main([*TUNE, "--output", "early"])
    monkeypatch.undo()
    assert finetune_main(["early", "--resume"]) == 2
    assert "nothing was saved before it ended; give the whole command again" in capsys.readouterr().err
    assert finetune_main([*TUNE, "--output", "early", "--resume"]) == 0
    assert_same_end(place / "early", whole)


def test_a_copy_evaluates_and_knows_its_training_set(place, whole, capsys):
    shutil.copytree(whole, "copy")
    assert 'recipe = "dataset"' in (place / "copy" / "config.toml").read_text()
    config = load_config("copy")
    assert config.data.recipe == str(place / "copy" / "dataset")
    assert known_dataset(config).folder == place / "copy" / "dataset"
    given = ["--walkers", "16", "--measurements", "16", "--equilibration", "5"]
    assert evaluate_main(["energies", "copy", "--configurations", "mine.extxyz", *given]) == 0
    assert "the training set is not on this machine" not in capsys.readouterr().out


def test_other_settings_and_other_data_are_refused(place, whole, capsys):
    shutil.copytree(whole, "asked")
    for change, sentence in (
        (["--walkers", "64"], "these differ: --walkers: 32 -> 64; leave them out"),
        (["--train", "heads", "--rank", "3"], "these differ: --train: all -> heads, --rank: 4 -> 3"),
        (["--steps", "8"], "24 steps are done already; give more --steps"),
        (["--configurations", "other.extxyz"], "the run was made from 2 other configurations than the 1 selected in"),
    ):
        given = ["parent", "--output", "asked", "--resume", *change]
        assert finetune_main(given) == 2
        assert sentence in capsys.readouterr().err
    assert load_config("asked").steps == 24


def test_more_steps(place, whole):
    shutil.copytree(whole, "longer")
    assert finetune_main(["longer", "--resume", "--steps", "26"]) == 0
    assert [step for step, _ in energies(place / "longer")] == list(range(1, 27))
    assert energies(place / "longer")[:24] == energies(whole)
    assert load_config("longer").steps == 26


def test_a_training_of_a_data_set_of_its_own_keeps_a_relative_path(place):
    """Any run whose data set is inside its folder can be moved."""
    shutil.copytree("whole", "inside")
    assert train_main(["inside/config.toml", "--output", "inside", "--resume"]) == 0
    assert 'recipe = "dataset"' in (place / "inside" / "config.toml").read_text()
