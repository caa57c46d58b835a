import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnqs.errors import InputError
from fnqs_train.checkpointing import held, orbax_trees, saving, steps
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_meta, restore_params
from fnqs_train.checkpointing.saving import Checkpoints
from fnqs_train.checkpointing.steps import CheckpointPath, find_damage


def make_state(seed=0):
    rng = np.random.default_rng(seed)
    params = {
        "layer": {"kernel": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)},
        "scale": jnp.asarray(rng.normal(size=2), jnp.float64),
        "key": jnp.asarray(rng.integers(0, 2**32, 2), jnp.uint32),
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params)
    walkers = {
        "electrons": rng.normal(size=(5, 2, 4, 3)).astype(np.float32),
        "widths": rng.normal(size=5),
        "seen": rng.random(5) < 0.5,
    }
    return params, optimizer, walkers


def save(checkpoints, step, energy=-0.5):
    params, optimizer, walkers = make_state(step)
    assert checkpoints.save(step, params, optimizer, walkers, {"energy_per_atom": energy, "fingerprint": "abc"})
    checkpoints.wait()


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def flip_a_bit(folder):
    largest = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def templates():
    params, optimizer, _ = make_state(99)
    return params, optimizer


def test_restores_exactly(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_latest(*templates()) is None
        save(checkpoints, 10)
        save(checkpoints, 20)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(*templates())
        assert not checkpoints.save(20, *make_state(20), {})
    params, optimizer, walkers = make_state(20)
    assert restored.step == 20
    assert_equal(restored.params, params)
    assert_equal(restored.optimizer, optimizer)
    assert_equal(restored.walkers, walkers)
    assert restored.meta == {"energy_per_atom": -0.5, "fingerprint": "abc"}


def test_parameters_come_from_a_copied_folder_alone(tmp_path):
    with Checkpoints(tmp_path / "run") as checkpoints:
        save(checkpoints, 10)
        save(checkpoints, 20)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    assert_equal(restore_params(tmp_path / "copy"), make_state(20)[0])
    assert_equal(restore_params(tmp_path / "copy" / "checkpoints" / "10", templates()[0]), make_state(10)[0])
    assert resolve_checkpoint(tmp_path / "copy" / "checkpoints").step == 20
    assert resolve_checkpoint(tmp_path / "copy" / "checkpoints" / "10") == (tmp_path / "copy", 10)
    assert restore_meta(tmp_path / "copy")["fingerprint"] == "abc"


def test_a_flipped_bit_is_found_and_the_step_before_is_used(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 10)
        save(checkpoints, 20)
    flip_a_bit(tmp_path / "checkpoints" / "20" / "walkers")
    with pytest.raises(InputError, match=r"the checkpoint is damaged \(walkers/.* has changed\)"):
        resolve_checkpoint(tmp_path / "checkpoints" / "20")
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(UserWarning, match="checkpoint 20 is damaged"):
            restored = checkpoints.restore_latest(*templates())
        assert restored.step == 10
        assert_equal(restored.params, make_state(10)[0])
        assert (tmp_path / "damaged-20").is_dir()
        save(checkpoints, 15)  # the run goes on from 10, past the place of the damaged one
        save(checkpoints, 20)
    assert resolve_checkpoint(tmp_path).step == 20


def test_a_damaged_old_step_does_not_hinder_saving(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 10)
        save(checkpoints, 20)
        (tmp_path / "checkpoints" / "10" / "meta" / "metadata").write_text("{")
        shutil.rmtree(tmp_path / "checkpoints" / "20" / "meta")
        save(checkpoints, 30)
    assert resolve_checkpoint(tmp_path).step == 30


def test_every_file_is_covered(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 10)
    chosen = CheckpointPath(tmp_path, 10)
    files = [f for f in chosen.folder.rglob("*") if f.is_file() and f.name != "blake2b.json"]
    assert len(files) > 10
    assert find_damage(chosen) == []
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content + b"x")
        assert find_damage(chosen) == [f"{file.relative_to(chosen.folder).as_posix()} has changed"]
        file.unlink()
        assert find_damage(chosen) == [f"{file.relative_to(chosen.folder).as_posix()} is missing"]
        file.write_bytes(content)
    (chosen.folder / "params" / "more").write_text("x")
    assert find_damage(chosen) == ["params/more does not belong to it"]


def test_a_step_killed_before_its_digests_is_not_used(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 10)
        save(checkpoints, 20)
    (tmp_path / "checkpoints" / "20" / "blake2b.json").unlink()
    (tmp_path / "checkpoints" / "30.orbax-checkpoint-tmp").mkdir()
    with pytest.warns(UserWarning, match="not saved to the end"):
        assert resolve_checkpoint(tmp_path).step == 10
    (tmp_path / "checkpoints" / "10" / "blake2b.json").write_text("{")
    with pytest.raises(InputError, match=r"every checkpoint is damaged \(checkpoint 20 .*blake2b\.json is missing"):
        resolve_checkpoint(tmp_path)
    with Checkpoints(tmp_path):
        assert not (tmp_path / "checkpoints" / "30.orbax-checkpoint-tmp").exists()


def test_keeps_the_latest_every_nth_and_the_best_across_restarts(tmp_path):
    energies = {10: -0.1, 20: -0.9, 30: -0.2, 40: float("nan"), 50: -0.3, 60: -0.4, 70: -0.5, 80: -0.6}
    for those in ((10, 20, 30, 40), (50, 60, 70, 80)):
        with Checkpoints(tmp_path, keep=2, every_nth_kept=50) as checkpoints:
            for step in those:
                save(checkpoints, step, energies[step])
    kept = sorted(int(folder.name) for folder in (tmp_path / "checkpoints").iterdir())
    assert kept == [20, 50, 70, 80]


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({"scale": jnp.zeros(3, jnp.float64)}, r"params scale is float64\[2\] there and float64\[3\] here"),
        ({"scale": jnp.zeros(2, jnp.float32)}, r"params scale is float64\[2\] there and float32\[2\] here"),
        ({"more": jnp.zeros(2)}, r"params more is absent there and float64\[2\] here"),
        ({"layer": {}}, r"params layer\.kernel is float32\[3, 4\] there and absent here"),
    ],
)
def test_another_model_is_refused(tmp_path, change, clause):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 10)
    template = make_state()[0] | change
    with pytest.raises(InputError, match=f"checkpoint of another model: {clause}"):
        restore_params(tmp_path, template)
    shapes = jax.eval_shape(lambda: make_state()[0])
    assert_equal(restore_params(tmp_path, shapes), make_state(10)[0])


def test_paths_that_are_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="no such run folder"):
        resolve_checkpoint(tmp_path / "none")
    with pytest.raises(InputError, match="no checkpoint here"):
        resolve_checkpoint(tmp_path)


@pytest.mark.parametrize("place", ["orbax", "digests"])
def test_a_full_disk_leaves_the_earlier_step_and_nothing_half_written(tmp_path, monkeypatch, place):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 10)
        if place == "orbax":

            def half(folder, tree):
                folder.mkdir()
                raise ValueError("RESOURCE_EXHAUSTED: No space left on device [os_error_code='28']")

            monkeypatch.setattr(saving, "save_tree", half)
        else:

            def fail(*args, **kwargs):
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr(saving, "write_text_atomic", fail)
        with pytest.raises(OSError, match="No space left on device"):
            save(checkpoints, 20)
        monkeypatch.undo()
        assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["10"]
        assert resolve_checkpoint(tmp_path).step == 10


def test_every_file_has_its_digest(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 10)
    step = tmp_path / "checkpoints" / "10"
    digests = json.loads((step / "blake2b.json").read_text())
    files = {path.relative_to(step).as_posix(): path for path in step.rglob("*") if path.is_file()}
    del files["blake2b.json"]
    assert {"meta/metadata", "params/_METADATA", "optimizer/_METADATA"} < set(files)
    assert digests == {
        name: hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for name, path in files.items()
    }


def test_what_is_being_read_is_not_deleted(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        save(checkpoints, 10)
        save(checkpoints, 20)
        chosen = resolve_checkpoint(tmp_path)  # as an evaluation does
        for step in (30, 40, 50):
            save(checkpoints, step, energy=-0.6)
        assert [step for step in (10, 20, 30, 40, 50) if CheckpointPath(tmp_path, step).folder.exists()] == [
            *(20, 30, 40, 50)  # 30 has the lowest energy, 10 is deleted
        ]
        assert_equal(restore_params(chosen), make_state(20)[0])
        assert find_damage(chosen) == []


def test_what_an_ended_process_has_read_is_deleted(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        save(checkpoints, 10, energy=-0.4)
        save(checkpoints, 20)
        program = (
            "import sys; from fnqs_train.checkpointing.checkpoint import resolve_checkpoint;"
            "print(resolve_checkpoint(sys.argv[1]).step)"
        )
        paths = os.pathsep.join(entry for entry in sys.path if entry)
        run = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "checkpoints" / "10")],
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout == "10\n"
        save(checkpoints, 30)
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == ["20", "30"]


def test_a_step_that_vanishes_while_it_is_looked_at_is_not_called_damaged(tmp_path, monkeypatch, recwarn):
    """As on a file system without locks: the latest step of the listing is replaced by a later one."""
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        save(checkpoints, 10)
        save(checkpoints, 20)
        look, vanished = steps.find_damage, []

        def vanishing(checkpoint, *, spared=()):
            if checkpoint.step == 20 and not vanished:
                vanished.append(20)
                save(checkpoints, 30)
                shutil.rmtree(checkpoint.folder)
            return look(checkpoint, spared=spared)

        monkeypatch.setattr(steps, "find_damage", vanishing)
        assert resolve_checkpoint(tmp_path).step == 30
        assert vanished == [20]
        assert [str(warning.message) for warning in recwarn] == []


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(held.fcntl, "flock", refuse)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (10, 20, 30, 40):
            save(checkpoints, step, energy=-step)
            assert resolve_checkpoint(tmp_path).step == step
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == ["30", "40"]


@pytest.mark.parametrize("item", ["params", "optimizer", "walkers"])
def test_what_does_not_read_back_as_it_was_never_becomes_a_checkpoint(tmp_path, monkeypatch, item):
    """The disk changes one bit of what it has just been given."""
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 10)
        if item == "walkers":
            load = np.load
            monkeypatch.setattr(np, "load", lambda path, **options: load(path, **options) ^ (path.name == "seen.npy"))
            wrong = dict(make_state(20)[2], electrons=np.zeros(3, np.int64), widths=np.zeros(2, np.int64))
        else:
            original = orbax_trees.restore_like

            def flipped(folder, template):
                restored = original(folder, template)
                return jax.tree.map(lambda x: x + np.asarray(folder.name == item, x.dtype), restored)

            monkeypatch.setattr(orbax_trees, "restore_like", flipped)
            wrong = make_state(20)[2]
        params, optimizer, _ = make_state(20)
        checkpoints.save(20, params, optimizer, wrong, {})
        with pytest.raises(OSError, match="does not read back as it was") as caught:
            checkpoints.wait()
        assert item in str(caught.value.filename)
        monkeypatch.undo()
        assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["10"]
