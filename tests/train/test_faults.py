"""What goes wrong during a run, each put in by hand: non-finite numbers, no memory, a full disk, damage, age."""

import dataclasses
import json
import pickle
import resource
import shutil
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.errors import InputError
from fnqs.optimisation.natural_gradient import spring
from fnqs_data.store.write import write_dataset
from fnqs_train import loop
from fnqs_train import step as step_module
from fnqs_train.checkpointing import saving
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_params
from fnqs_train.checkpointing.digests import DIGEST_NAME, digests_of
from fnqs_train.checkpointing.saving import Checkpoints
from fnqs_train.checkpointing.steps import CheckpointPath, find_damage
from fnqs_train.chunks import Chunks, MemoryConfig, choose_chunks
from fnqs_train.config import CheckpointConfig, DataConfig, LogConfig, OptimizerConfig, RunConfig
from fnqs_train.loop import train
from fnqs_train.monitoring.metrics import read_metrics
from fnqs_train.step import StepReport

CLOCKS = ("seconds_per_step", "data_wait_seconds", "elapsed_seconds")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, make_bcc):
    return write_dataset(tmp_path_factory.mktemp("data") / "set", [make_bcc(i) for i in range(2)])


@pytest.fixture(scope="module")
def config(dataset, small_model, small_sampling):
    return RunConfig(
        name="try",
        steps=4,
        data=DataConfig(recipe=str(dataset.folder)),
        model=small_model,
        sampling=small_sampling,
        checkpoint=CheckpointConfig(every_steps=1, keep=4),
        log=LogConfig(wandb="disabled", every_steps=1),
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory, config, dataset):
    """A run without faults."""
    folder = tmp_path_factory.mktemp("sound") / "run"
    train(config, folder, dataset)
    return folder


def rows(folder):
    return [{key: row[key] for key in row if key not in CLOCKS} for row in read_metrics(folder)]


def params_at(folder, step):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(restore_params(folder / "checkpoints" / str(step)))])


def broken_energies(value):
    original = step_module.local_energies

    def energies(wavefunction, params, contexts, systems, walkers, chunk):
        return original(wavefunction, params, contexts, systems, walkers, chunk).at[0, 3].set(value)

    return "local_energies", energies


def broken_derivatives(value):
    original = step_module.log_derivatives

    def derivatives(*arguments):
        return original(*arguments).at[0, 5, 7].set(value)

    return "log_derivatives", derivatives


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda: broken_energies(-jnp.inf), id="an energy is minus infinity"),
        pytest.param(lambda: broken_derivatives(jnp.inf), id="a derivative is infinity"),
    ],
)
def test_numbers_of_one_configuration(tmp_path, config, dataset, monkeypatch, capsys, fault):
    name, function = fault()
    monkeypatch.setattr(step_module, name, function)
    step_module.make_step.cache_clear()
    short = dataclasses.replace(config, steps=2)
    params = train(short, tmp_path / "run", dataset)
    step_module.make_step.cache_clear()
    said = capsys.readouterr().out
    assert said.count("left out of the step") == 2
    lost = {row["non_finite"][0] for row in read_metrics(tmp_path / "run")}
    assert lost <= {"bcc-0", "bcc-1"}
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
    assert np.isfinite(read_metrics(tmp_path / "run")[0]["energy_per_atom"])  # of the other one
    assert np.any(params_at(tmp_path / "run", 1) != params_at(tmp_path / "run", 2))


def test_a_solve_that_gives_nothing_finite(tmp_path, config, dataset, monkeypatch, capsys):
    def broken_optimizer(settings, steps):
        inner = spring(0.05)

        def update(updates, state, params=None, **extra):
            changes, state = inner.update(updates, state, params, **extra)
            return jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].set(jnp.nan), changes), state

        return inner._replace(update=update)

    monkeypatch.setattr(loop, "make_optimizer", broken_optimizer)
    train(dataclasses.replace(config, steps=2), tmp_path / "run", dataset)
    assert capsys.readouterr().out.count("a non-finite solve; step skipped") == 2
    np.testing.assert_array_equal(params_at(tmp_path / "run", 1), params_at(tmp_path / "run", 2))


def never_finite(learned, systems, walkers, widths, key):
    lost, no = jnp.full(2, jnp.nan), jnp.zeros((), bool)
    report = StepReport(lost, lost, jnp.full(2, 0.5), jnp.zeros(2, bool), no, jnp.nan, no)
    return learned, jnp.asarray(walkers), widths, report


def test_refusals_are_counted_across_a_resume(tmp_path, config, dataset, monkeypatch):
    """A run that is resumed in the middle of a bad stretch gives up after the same step as one that is not."""
    monkeypatch.setattr(loop, "make_step", lambda *_: never_finite)
    longer = dataclasses.replace(config, steps=40)
    ends = []
    for name, first in (("whole", 0), ("halves", 3)):
        if first:
            train(dataclasses.replace(longer, steps=first), tmp_path / name, dataset)
        with pytest.raises(InputError, match="stay non-finite") as caught:
            train(longer, tmp_path / name, dataset, resume=bool(first))
        ends.append(str(caught.value))
    assert ends[0] == ends[1]


def really_out_of_memory(limit, chunks_seen):
    """A stand-in for make_step whose programs ask for too much memory, for real, above a number of walkers."""
    original = loop.make_step

    def make(*arguments):
        step, chunks = original(*arguments), next(value for value in arguments if isinstance(value, Chunks))
        chunks_seen.append((chunks.energy, chunks.gradient))

        def take(*arguments):
            if chunks.energy > limit:
                jnp.zeros(2**58, jnp.int8).block_until_ready()
            return step(*arguments)

        return take

    return make


def test_out_of_memory_halves_the_chunks_once(tmp_path, config, dataset, sound, monkeypatch, capsys):
    fitting, seen = choose_chunks(2, config.model), []
    monkeypatch.setattr(loop, "make_step", really_out_of_memory(fitting.energy, seen))
    memory = MemoryConfig(energy_walkers=2 * fitting.energy, gradient_walkers=2 * fitting.gradient)
    wide = dataclasses.replace(config, memory=memory)
    train(wide, tmp_path / "run", dataset)
    assert seen == [(2 * fitting.energy, 2 * fitting.gradient), (fitting.energy, fitting.gradient)]
    assert capsys.readouterr().out.count(f"out of memory at N = 2: local energies of {fitting.energy} instead of") == 1
    assert rows(tmp_path / "run") == rows(sound)  # from the first step on it is that of the smaller chunks

    monkeypatch.undo()
    monkeypatch.setattr(loop, "make_step", really_out_of_memory(1, seen))
    with pytest.raises(InputError, match=f"even with {fitting.energy} and {fitting.gradient} walkers together; take"):
        train(wide, tmp_path / "again", dataset)


def test_a_full_disk_stops_the_run_at_its_last_checkpoint(tmp_path, config, dataset, sound):
    """No file may grow beyond 4 kB from the third save on, as where a disk or quota is exhausted."""
    folder = tmp_path / "run"
    train(dataclasses.replace(config, steps=2), folder, dataset)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            train(config, folder, dataset, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(entry.name for entry in (folder / "checkpoints").iterdir()) == ["1", "2"]
    assert find_damage(CheckpointPath(folder, 2)) == []
    train(config, folder, dataset, resume=True)
    np.testing.assert_array_equal(params_at(folder, 4), params_at(sound, 4))
    assert rows(folder) == rows(sound)


def test_a_damaged_checkpoint_is_not_trained_on(tmp_path, config, dataset, sound):
    folder = tmp_path / "run"
    train(dataclasses.replace(config, steps=3), folder, dataset)
    for file in (folder / "checkpoints" / "3" / "walkers").rglob("positions*.npy"):
        data = bytearray(file.read_bytes())
        data[-5] ^= 4
        file.write_bytes(data)
    with pytest.warns(UserWarning, match="checkpoint 3 is damaged and not used: walkers/n002/positions"):
        train(config, folder, dataset, resume=True)
    assert (folder / "damaged-3").is_dir()
    np.testing.assert_array_equal(params_at(folder, 4), params_at(sound, 4))
    assert rows(folder) == rows(sound)


def test_a_save_does_not_hold_up_the_steps(tmp_path, config, dataset, monkeypatch, sound):
    """With a disk that takes as long as two steps, the steps go on, and what is saved is the state of its own step."""
    release, visits, unfinished = threading.Event(), [], []
    save_tree, take, steps = saving.save_tree, loop.Population.take, tmp_path / "run" / "checkpoints"

    def slow(folder, tree):
        if folder == steps / "2.part" / "params":
            assert release.wait(60)
        save_tree(folder, tree)

    def taking(self, number, indices):
        visits.append(1)
        if len(visits) == 4:
            unfinished.append(not (steps / "2").exists())
            release.set()
        return take(self, number, indices)

    monkeypatch.setattr(saving, "save_tree", slow)
    monkeypatch.setattr(loop.Population, "take", taking)
    train(dataclasses.replace(config, checkpoint=CheckpointConfig(every_steps=2, keep=4)), tmp_path / "run", dataset)
    assert unfinished == [True]  # step 3 was taken and step 4 began while step 2 was still being written
    for step in (2, 4):
        assert find_damage(CheckpointPath(tmp_path / "run", step)) == []
        np.testing.assert_array_equal(params_at(tmp_path / "run", step), params_at(sound, step))


def test_stale_walkers_equilibrate_before_they_count(tmp_path, config, dataset, monkeypatch):
    calls, make = [], loop.make_equilibration

    def counted(wavefunction, sampling, mesh):
        equilibrate = make(wavefunction, sampling, mesh)

        def settle(params, systems, walkers, widths, fresh, stale, key):
            settled = equilibrate(params, systems, walkers, widths, fresh, stale, key)
            moved = np.any(np.abs(np.asarray(settled[0]) - np.asarray(walkers)) > 0.01, axis=(1, 2, 3))
            calls.append((fresh.tolist(), stale.tolist(), moved.tolist()))
            return settled

        return settle

    monkeypatch.setattr(loop, "make_equilibration", counted)
    # Both configurations are visited in every step; at the third one of them counts as not seen for long.
    monkeypatch.setattr(loop.Population, "ages", lambda self, number, indices, step: np.array([1001 * (step == 2), 1]))
    train(config, tmp_path / "run", dataset)
    # The other one stays where it is, but for what putting it back into the cell rounds.
    both, first, none = [True, True], [True, False], [False, False]
    assert calls == [(both, none, both), (none, first, first)]


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


# Orbax leaves work of its own behind when it refuses a file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_hostile_checkpoint_cannot_run_code(tmp_path, config, dataset, sound, monkeypatch):
    """Every file of a checkpoint is replaced by a pickle that would act, with digests that are right."""
    sprung = tmp_path / "sprung"
    payload = pickle.dumps(Trap(sprung))
    np.save(tmp_path / "object.npy", np.array([Trap(sprung)], object), allow_pickle=True)
    pickle.loads(payload).close()
    assert sprung.exists()  # the trap works
    sprung.unlink()
    payloads = {"pickle": payload, "object array": (tmp_path / "object.npy").read_bytes()}
    originals = sorted(file for file in (sound / "checkpoints" / "4").rglob("*") if file.is_file())
    for number, original in enumerate(originals):
        if original.name == DIGEST_NAME:
            continue
        run = tmp_path / str(number)
        shutil.copytree(sound / "checkpoints" / "4", run / "checkpoints" / "4")
        folder = CheckpointPath(run, 4).folder
        (folder / original.relative_to(sound / "checkpoints" / "4")).write_bytes(
            payloads["object array" if original.suffix == ".npy" else "pickle"]
        )
        files = [file for file in folder.rglob("*") if file.is_file() and file.name != DIGEST_NAME]
        (folder / DIGEST_NAME).write_text(json.dumps(digests_of(folder, files)))
        assert find_damage(CheckpointPath(run, 4)) == []
        with Checkpoints(run) as checkpoints:
            try:
                params = restore_params(sound)
                checkpoints.restore_latest(params, loop.on_host(loop.make_optimizer(config.optimizer).init(params)))
            except Exception:  # any refusal will do
                continue
            finally:
                assert not sprung.exists(), original


def test_an_evaluation_needs_neither_optimiser_nor_walkers(tmp_path, sound):
    shutil.copytree(sound, tmp_path / "copy")
    for item in ("optimizer", "walkers"):
        shutil.rmtree(tmp_path / "copy" / "checkpoints" / "4" / item)
    assert resolve_checkpoint(tmp_path / "copy").step == 4
    np.testing.assert_array_equal(params_at(tmp_path / "copy", 4), params_at(sound, 4))
    params = restore_params(sound)
    optimizer = loop.on_host(loop.make_optimizer(OptimizerConfig()).init(params))
    with Checkpoints(tmp_path / "copy") as checkpoints:
        with pytest.warns(UserWarning, match="checkpoint 4 is damaged"):
            restored = checkpoints.restore_latest(params, optimizer)
        assert restored.step == 3  # a training needs them
