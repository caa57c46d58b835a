import dataclasses
import os
import shutil
import signal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.errors import InputError
from fnqs_data.store.write import write_dataset
from fnqs_train import loop
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_meta, restore_params
from fnqs_train.checkpointing.saving import Checkpoints
from fnqs_train.config import CheckpointConfig, DataConfig, LogConfig, RunConfig, load_config
from fnqs_train.loop import train
from fnqs_train.monitoring.metrics import read_metrics
from fnqs_train.step import StepReport, make_optimizer
from fnqs_train.walkers import Population

CLOCKS = ("seconds_per_step", "data_wait_seconds", "elapsed_seconds")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, make_bcc):
    records = [make_bcc(i) for i in range(4)] + [make_bcc(4, split="held-out-density")]
    return write_dataset(tmp_path_factory.mktemp("data") / "set", records)


@pytest.fixture
def config(dataset, small_model, small_sampling):
    return RunConfig(
        name="try",
        steps=6,
        data=DataConfig(recipe=str(dataset.folder)),
        model=small_model,
        sampling=small_sampling,
        checkpoint=CheckpointConfig(every_steps=2),
        log=LogConfig(wandb="disabled", every_steps=1),
    )


def with_steps(config, steps):
    return dataclasses.replace(config, steps=steps)


def rows(folder):
    """The record of a run without what the clock says."""
    return [{key: row[key] for key in row if key not in CLOCKS} for row in read_metrics(folder)]


def assert_same(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, dataset, small_model, small_sampling):
    """A run of six steps: its folder and final parameters."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    config = RunConfig(
        name="try",
        steps=6,
        data=DataConfig(recipe=str(dataset.folder)),
        model=small_model,
        sampling=small_sampling,
        checkpoint=CheckpointConfig(every_steps=2),
        log=LogConfig(wandb="disabled", every_steps=1),
    )
    return folder, train(config, folder, dataset)


def test_a_run_leaves_config_record_and_checkpoint(reference, config, uniform_bcc):
    folder, params = reference
    assert load_config(folder) == config
    found = rows(folder)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    for row in found:
        assert row["number"] == 2
        # Edges of 2.6 to 2.9 bohr; 0.11 Ha is four standard errors of 64 walkers with the variance of a new model.
        assert uniform_bcc(2.6) - 0.07 - 0.11 < row["energy_per_atom"] < uniform_bcc(2.9) + 0.11
        assert row["variance_per_atom"] > 0
        assert 0 < row["acceptance"] < 1
        assert row["non_finite"] == []
    assert found[-1]["visited"] == 4  # not the one held out
    assert resolve_checkpoint(folder).step == 6
    assert_same(restore_params(folder), params)
    meta = restore_meta(folder)
    assert meta["configurations"] == 4
    assert meta["parent"] == ""


def test_two_halves_equal_the_whole_bit_for_bit(tmp_path, config, dataset, reference):
    folder, params = reference
    train(with_steps(config, 3), tmp_path / "halves", dataset)
    assert len(rows(tmp_path / "halves")) == 3
    again = train(config, tmp_path / "halves", dataset, resume=True)
    assert_same(again, params)
    assert rows(tmp_path / "halves") == rows(folder)
    assert_same(restore_params(tmp_path / "halves"), params)


def test_a_run_from_before_run_aways_were_noticed_goes_on(tmp_path, config, dataset, reference):
    """Its checkpoints know nothing of the guard, nor of the length of a step."""
    train(with_steps(config, 3), tmp_path / "new", dataset)
    (tmp_path / "old").mkdir()
    for name in ("config.toml", "metrics.jsonl"):
        shutil.copy(tmp_path / "new" / name, tmp_path / "old")
    params, optimizer = reference[1], make_optimizer(config.optimizer).init(reference[1])
    with Checkpoints(tmp_path / "new") as new, Checkpoints(tmp_path / "old") as old:
        found = new.restore_latest(params, optimizer)
        walkers = {name: tree for name, tree in found.walkers.items() if name != "guard"}
        meta = {name: value for name, value in found.meta.items() if name != "guard"}
        assert (len(walkers), len(meta)) == (len(found.walkers) - 1, len(found.meta) - 1)
        old.save(found.step, found.params, found.optimizer, walkers, meta)
    assert_same(train(config, tmp_path / "old", dataset, resume=True), reference[1])
    assert rows(tmp_path / "old") == rows(reference[0])


def test_another_seed_gives_another_run(tmp_path, config, dataset, reference):
    train(dataclasses.replace(with_steps(config, 1), seed=1), tmp_path / "other", dataset)
    assert rows(tmp_path / "other")[0]["energy_per_atom"] != rows(reference[0])[0]["energy_per_atom"]


def test_other_data_are_refused_and_the_run_stays_as_it_was(tmp_path, config, dataset, make_bcc):
    folder = tmp_path / "run"
    train(with_steps(config, 2), folder, dataset)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    other = write_dataset(tmp_path / "other", [make_bcc(i) for i in (0, 1, 2, 9)])
    changed = dataclasses.replace(config, data=DataConfig(recipe=str(other.folder)))
    with pytest.raises(InputError, match="trained on other data"):
        train(changed, folder, other, resume=True)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_an_empty_split_leaves_nothing_behind(tmp_path, config, dataset):
    empty = dataclasses.replace(config, data=dataclasses.replace(config.data, split="held-out-phase"))
    with pytest.raises(InputError, match="no configurations with split 'held-out-phase'"):
        train(empty, tmp_path / "run", dataset)
    assert not (tmp_path / "run").exists()


def test_parameters_given_to_start_from_stay_usable(tmp_path, config, dataset, reference):
    params = jax.tree.map(jnp.array, reference[1])
    result = train(with_steps(config, 1), tmp_path / "tuned", dataset, params=params, parent="whole step 6")
    assert_same(params, reference[1])  # raises if a step had taken the arrays away
    pairs = zip(jax.tree.leaves(result), jax.tree.leaves(params), strict=True)
    assert any(np.any(np.asarray(new) != np.asarray(old)) for new, old in pairs)
    assert restore_meta(tmp_path / "tuned")["parent"] == "whole step 6"


def test_a_broken_configuration_is_named_left_out_and_started_again(tmp_path, config, dataset, monkeypatch, capsys):
    original, taken = Population.take, []

    def take(self, number, indices):
        positions, widths, fresh = original(self, number, indices)
        taken.append((indices, fresh.copy()))
        if len(taken) == 3:  # all four are equilibrated by now
            positions[0] = np.nan
        return positions, widths, fresh

    monkeypatch.setattr(Population, "take", take)
    quiet = dataclasses.replace(config, log=LogConfig(wandb="disabled", every_steps=4))
    params = train(quiet, tmp_path / "run", dataset)
    broken = int(taken[2][0][0])
    name = dataset.identifiers[broken]
    assert f"step 3: non-finite numbers at {name}; left out of the step" in capsys.readouterr().out
    # The record has the name too, though no line is written at the step itself.
    assert [row["non_finite"] for row in read_metrics(tmp_path / "run")] == [[name], []]
    later = next((indices, fresh) for indices, fresh in taken[3:] if broken in indices)
    assert later[1][later[0] == broken].all()
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))


def test_a_step_with_nothing_finite_is_skipped(tmp_path, config, dataset, monkeypatch, capsys, reference):
    original, calls = Population.take, []

    def take(self, number, indices):
        positions, widths, fresh = original(self, number, indices)
        calls.append(1)
        if len(calls) == 3:
            positions[:] = np.nan
        return positions, widths, fresh

    monkeypatch.setattr(Population, "take", take)
    keeping = dataclasses.replace(with_steps(config, 3), checkpoint=CheckpointConfig(every_steps=1, keep=3))
    train(keeping, tmp_path / "run", dataset)
    assert "step skipped" in capsys.readouterr().out
    steps = tmp_path / "run" / "checkpoints"
    assert_same(restore_params(steps / "2"), restore_params(steps / "3"))
    assert restore_meta(steps / "3")["energy_per_atom"] is None
    assert read_metrics(tmp_path / "run")[2]["energy_per_atom"] is None
    # Two steps without faults, so the parameters are those of the reference run there.
    assert rows(tmp_path / "run")[:2] == rows(reference[0])[:2]


def never_finite(learned, systems, walkers, widths, key):
    lost = jnp.full(2, jnp.nan)
    no = jnp.zeros((), bool)
    report = StepReport(lost, lost, jnp.full(2, 0.5), jnp.zeros(2, bool), no, jnp.nan, no)
    return learned, jnp.asarray(walkers), widths, report


def test_numbers_that_stay_non_finite_restore_once_and_then_stop(tmp_path, config, dataset, monkeypatch, capsys):
    folder = tmp_path / "run"
    train(with_steps(config, 2), folder, dataset)
    monkeypatch.setattr(loop, "make_step", lambda *_: never_finite)
    longer = dataclasses.replace(with_steps(config, 50), checkpoint=CheckpointConfig(every_steps=100))
    with pytest.raises(InputError, match=r"stay non-finite \(bcc-.*lower optimizer\.learning_rate"):
        train(longer, folder, dataset, resume=True)
    assert "parameters of step 2 restored" in capsys.readouterr().out
    assert max(row["step"] for row in read_metrics(folder)) < 2 + 2 * (loop.PATIENCE + 2)
    assert resolve_checkpoint(folder).step == 2  # nothing was saved over it


def test_without_a_checkpoint_they_stop_at_once(tmp_path, config, dataset, monkeypatch):
    monkeypatch.setattr(loop, "make_step", lambda *_: never_finite)
    lasting = dataclasses.replace(with_steps(config, 50), checkpoint=CheckpointConfig(every_steps=100))
    with pytest.raises(InputError, match="stay non-finite"):
        train(lasting, tmp_path / "run", dataset)


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_resumed_run_is_the_same(tmp_path, config, dataset, reference, monkeypatch, name):
    make_step, before = loop.make_step, signal.getsignal(name)

    def interrupted(*arguments):
        step, calls = make_step(*arguments), []

        def take(*state):
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), name)
            return step(*state)

        return take

    monkeypatch.setattr(loop, "make_step", interrupted)
    rare = dataclasses.replace(config, checkpoint=CheckpointConfig(every_steps=100))
    with pytest.raises(KeyboardInterrupt):
        train(rare, tmp_path / "run", dataset)
    assert signal.getsignal(name) == before
    assert resolve_checkpoint(tmp_path / "run").step == 3
    monkeypatch.undo()
    assert_same(train(rare, tmp_path / "run", dataset, resume=True), reference[1])
    assert rows(tmp_path / "run") == rows(reference[0])


def test_nothing_is_compiled_during_a_run(tmp_path, config, dataset, reference):
    """Twice as many steps need the same compilations: those of the start."""
    del reference  # by now every program of these shapes has been compiled
    counted = []
    for steps in (4, 8):
        compilations = []
        listen = partial(_note_compilation, compilations)
        jax.monitoring.register_event_duration_secs_listener(listen)
        train(dataclasses.replace(config, steps=steps), tmp_path / str(steps), dataset)
        jax.monitoring.unregister_event_duration_listener(listen)
        counted.append(len(compilations))
    assert counted[0] == counted[1]
    assert counted[0] > 0  # the listener hears compilations at all: drawing parameters is compiled in every run


def _note_compilation(found: list[str], event: str, duration: float, **_) -> None:
    del duration
    if "backend_compile" in event:
        found.append(event)
