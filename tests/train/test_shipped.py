"""Copies of runs to give away, and models found by name."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.errors import InputError
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_params
from fnqs_train.checkpointing.publish import publish
from fnqs_train.checkpointing.saving import Checkpoints
from fnqs_train.checkpointing.steps import find_damage
from fnqs_train.models import shipped

PARAMS = {"layer": {"kernel": jnp.arange(6.0).reshape(2, 3)}}


@pytest.fixture
def run(tmp_path):
    """A run folder with one checkpoint."""
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(7, PARAMS, {"delta": jnp.zeros(6)}, {"electrons": np.zeros((2, 3))}, {"energy_per_atom": -0.5})
    for name in ("config.toml", "recipe.toml", "metrics.jsonl", "notes.txt"):
        (tmp_path / "run" / name).write_text(name)
    return tmp_path / "run"


def test_a_published_run_has_what_an_evaluation_needs_and_nothing_else(run, tmp_path):
    folder = publish(resolve_checkpoint(run), tmp_path / "copy")
    assert sorted(file.name for file in folder.iterdir()) == [
        "checkpoints",
        "config.toml",
        "metrics.jsonl",
        "recipe.toml",
    ]
    found = resolve_checkpoint(folder)
    assert found.step == 7
    assert sorted(item.name for item in found.folder.iterdir()) == ["blake2b.json", "meta", "params"]
    np.testing.assert_array_equal(restore_params(found)["layer"]["kernel"], PARAMS["layer"]["kernel"])
    for file in folder.rglob("*"):  # nothing tells where the run was
        assert not file.is_file() or str(tmp_path).encode() not in file.read_bytes()
    with pytest.raises(InputError, match="is there already"):
        publish(found, folder)


def test_nothing_is_left_of_a_copy_that_failed(run, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space"):
        publish(resolve_checkpoint(run), tmp_path / "copy")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_model_is_found_by_name_where_there_is_no_such_folder(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "MODELS", tmp_path)
    monkeypatch.chdir(tmp_path / "run")
    for text in ("run", "run/checkpoints/7"):
        found = resolve_checkpoint(text)
        assert (found.run_folder, found.step) == (run, 7)
    assert shipped.results_folder(run).as_posix() == "runs/run"
    assert shipped.results_folder(tmp_path.parent / "own").name == "own"
    for text in ("walk", "run/checkpoints/8"):
        with pytest.raises(InputError, match=r"no such run folder.*come with fnqs: run"):
            resolve_checkpoint(text)
    (tmp_path / "run" / "run").mkdir()  # a folder of one's own comes first
    with pytest.raises(InputError, match="no checkpoint here"):
        resolve_checkpoint("run")


@pytest.mark.parametrize("name", shipped.shipped_models())
def test_models_that_come_with_the_package_are_sound_and_small(name):
    found = resolve_checkpoint(shipped.MODELS / name)
    assert not find_damage(found, spared=("optimizer", "walkers"))
    assert sum(file.stat().st_size for file in found.run_folder.rglob("*") if file.is_file()) < 5e6
