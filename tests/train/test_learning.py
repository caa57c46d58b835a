"""The energy above the untrained state: its arithmetic, and that it shows a training learn without touching it."""

import dataclasses

import numpy as np
import pytest

from fnqs_data.store.write import write_dataset
from fnqs_train import loop
from fnqs_train.config import CheckpointConfig, DataConfig, LogConfig, OptimizerConfig, RunConfig
from fnqs_train.loop import train
from fnqs_train.monitoring.learning import EVERY, is_measured, measure
from fnqs_train.monitoring.metrics import read_metrics
from fnqs_train.step import StepReport

CLOCKS = ("seconds_per_step", "data_wait_seconds", "elapsed_seconds")


def report(energy, variance, finite):
    shared = {"acceptance": np.full(len(energy), 0.5), "taken": True, "update_norm": 1.0, "fallback": False}
    return StepReport(energy=np.array(energy), variance=np.array(variance), finite=np.array(finite), **shared)


def test_configurations_are_compared_with_themselves():
    now = report([-0.5, -0.7, np.nan, -0.9], [0.02, 0.03, np.nan, 0.1], [True, True, False, True])
    before = report([-0.4, -0.68, -0.3, np.inf], [0.04, 0.05, 0.1, np.nan], [True, True, True, False])
    gain = measure(40, now, before, n_electrons=8, n_walkers=4)
    assert gain.step == 40
    assert gain.energy == pytest.approx((-0.1 - 0.02) / 2)
    # E/N of one walker has the variance var/N / N; four walkers each, a mean over two configurations.
    assert gain.error == pytest.approx(np.sqrt((0.02 + 0.03 + 0.04 + 0.05) / (8 * 4)) / 2)
    nothing = report([np.nan], [np.nan], [False])
    assert measure(40, nothing, report([-0.4], [0.1], [True]), 8, 4) is None


def test_it_is_measured_often_at_the_start_and_rarely_later():
    chosen = [step for step in range(1, 201) if is_measured(step)]
    assert chosen[:4] == [5, 10, 20, 40]
    assert len(chosen) == 2 + 200 // EVERY


def test_a_training_records_it_and_is_not_changed(tmp_path, small_model, small_sampling, make_bcc, monkeypatch):
    config = RunConfig(
        name="learns",
        steps=20,
        data=DataConfig(recipe="set"),
        model=small_model,
        sampling=dataclasses.replace(small_sampling, walkers_per_configuration=64),
        optimizer=OptimizerConfig(learning_rate=0.1, max_norm=5.0),
        checkpoint=CheckpointConfig(every_steps=20),
        log=LogConfig(wandb="disabled", every_steps=4),
    )
    dataset = write_dataset(tmp_path / "set", [make_bcc(i) for i in range(6)])
    train(config, tmp_path / "run", dataset)
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows if row["above_untrained"] is not None] == [8, 12, 20]
    last = rows[-1]
    # 64 walkers of each of two cells of N = 2 know the difference to some 20 mHa.
    assert 0 < last["above_untrained_error"] < 0.1
    assert -1 < last["above_untrained"] < 5 * last["above_untrained_error"]
    monkeypatch.setattr(loop, "is_measured", lambda step: False)
    train(config, tmp_path / "without", dataset)
    left_out = (*CLOCKS, "above_untrained", "above_untrained_error")
    without = [{key: row[key] for key in row if key not in left_out} for row in read_metrics(tmp_path / "without")]
    assert without == [{key: row[key] for key in row if key not in left_out} for row in rows]
