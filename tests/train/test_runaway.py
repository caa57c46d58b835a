"""A training that leaves a good state goes back to it, says so, and is the same after a resume."""

import dataclasses

import jax
import numpy as np
import pytest

from fnqs_data.store.write import write_dataset
from fnqs_train import loop
from fnqs_train.config import CheckpointConfig, DataConfig, LogConfig, OptimizerConfig, RunConfig
from fnqs_train.loop import train
from fnqs_train.monitoring.metrics import read_metrics
from fnqs_train.stability import runaway
from fnqs_train.stability.runaway import KEPT_EVERY, LASTING, SHORTER, TRIES, Guard
from fnqs_train.step import Learned, StepReport

KIND = (2, False, 2)
CLOCKS = ("seconds_per_step", "data_wait_seconds", "elapsed_seconds")


def report(energy, variance=0.01, finite=(True, True)):
    pair = np.ones(2)
    return StepReport(
        np.asarray(energy) * pair, np.asarray(variance) * pair, 0.5 * pair, np.array(finite), *np.array([1, 0.1, 0])
    )


def quiet(seed):
    """Reports of good steps without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield report(-0.5 + 0.001 * rng.normal(size=2), 0.01 * np.exp(0.1 * rng.normal(size=2)))


def learned(value):
    return Learned({"a": np.full(3, value, np.float32)}, {"count": np.int32(value)})


@pytest.fixture
def settled():
    """A guard after 100 good steps, whose parameters count them."""
    guard, good = Guard(9, learned(0)), quiet(0)
    for step in range(1, 101):
        assert guard.watch(KIND, np.array([4, 7]), next(good)) is None
        guard.keep(step, learned(step))
    return guard


def watch_all(guard, reports, indices=(4, 7)):
    """What the guard says to one report after another."""
    return [guard.watch(KIND, np.array(indices), one) for one in reports]


@pytest.mark.parametrize(
    ("bad", "ran"),
    [
        (report([-0.5, -0.4]), [False, True]),
        (report(-0.5, [0.1, 0.01]), [True, False]),
        (report([-0.4, np.nan], [0.01, np.nan], finite=(True, False)), [True, False]),
    ],
    ids=["energy", "variance", "beside one that is not finite"],
)
def test_what_stays_too_high_is_a_run_away(settled, bad, ran):
    *before, last = watch_all(settled, [bad] * LASTING)
    assert before == [None] * (LASTING - 1)
    assert last.tolist() == ran


def test_configurations_seen_once_run_away_together():
    """Each step has other configurations; only the variances of steps can be compared."""
    guard, good = Guard(500, learned(0)), quiet(0)
    for step in range(100):
        assert guard.watch(KIND, np.array([2 * step, 2 * step + 1]), next(good)) is None
    for turn in range(LASTING):
        step = 100 + turn
        found = guard.watch(KIND, np.array([2 * step, 2 * step + 1]), report(-0.5, 0.1))
    assert found.tolist() == [True, True]


def test_outliers_and_steps_without_numbers_are_none(settled):
    good, bad = quiet(1), report(-0.3, 1.0)
    lost = report(np.nan, np.nan, finite=(False, False))
    series = [one for _ in range(30) for one in (*[bad] * (LASTING - 1), lost, next(good))]
    assert watch_all(settled, series) == [None] * len(series)


def test_an_older_state_comes_back_and_steps_grow_again(settled):
    watch_all(settled, [report(-0.4)] * LASTING)
    back = settled.go_back(104)
    kept = int(back.params["a"][0])
    assert 100 - 3 * KEPT_EVERY < kept <= 100 - KEPT_EVERY
    assert int(back.optimizer["count"]) == kept == settled.kept_step
    assert float(back.length) == settled.length == SHORTER
    assert settled.distrusts(np.array([-1, kept - 1, kept, 103, 104])).tolist() == [False, False, True, True, False]
    good = quiet(2)
    for step in range(105, 165):
        assert watch_all(settled, [next(good)]) == [None]
        settled.keep(step, learned(step))
    assert settled.length == 1


def test_a_level_that_stays_is_taken_as_it_is(settled):
    """The same state is not gone back to again and again."""
    found = [one for one in watch_all(settled, [report(-0.4)] * 200) if one is not None]
    assert len(found) > TRIES  # nothing was done about it
    for _ in range(TRIES):
        watch_all(settled, [report(-0.4)] * LASTING)
        settled.go_back(110)
    good = (report(0.1 + one.energy, one.variance) for one in quiet(3))
    assert all(one is None for one in watch_all(settled, [next(good) for _ in range(100)]))


def test_a_saved_guard_goes_on_as_it_would_have(settled):
    watch_all(settled, [report(-0.4)] * (LASTING - 1))
    arrays, values = settled.state()
    again = Guard(9, learned(0))
    again.restore(jax.tree.map(np.copy, arrays), values)
    for guard in (settled, again):
        assert watch_all(guard, [report(-0.4)])[0].all()
    left, right = settled.go_back(104), again.go_back(104)
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert left.params["a"].dtype == right.params["a"].dtype


# ---- In a training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, make_bcc):
    return write_dataset(tmp_path_factory.mktemp("data") / "set", [make_bcc(0), make_bcc(1)])


@pytest.fixture
def config(dataset, small_model, small_sampling):
    return RunConfig(
        name="try",
        steps=48,
        data=DataConfig(recipe=str(dataset.folder)),
        model=small_model,
        sampling=small_sampling,
        optimizer=OptimizerConfig(learning_rate=0.02),
        checkpoint=CheckpointConfig(every_steps=100),
        log=LogConfig(wandb="disabled", every_steps=1),
    )


SPOILT = 22
"""Step after which the parameters are changed as no step should."""


@pytest.fixture
def spoilt(monkeypatch):
    """Add noise to the parameters after step SPOILT, counted by the optimiser, the first time that it is made."""
    monkeypatch.setattr(runaway, "KEPT_EVERY", 5)
    make_step, done = loop.make_step, []

    def spoiling(*arguments):
        step = make_step(*arguments)

        def take(learned, *others):
            learned, *rest = step(learned, *others)
            if int(learned.optimizer.count) == SPOILT and not done:
                done.append(SPOILT)
                rng = np.random.default_rng(0)
                noisy = [
                    leaf + 0.5 * rng.normal(size=leaf.shape).astype(np.float32)
                    for leaf in jax.tree.leaves(learned.params)
                ]
                learned = learned._replace(params=jax.tree.unflatten(jax.tree.structure(learned.params), noisy))
            return learned, *rest

        return take

    monkeypatch.setattr(loop, "make_step", spoiling)
    return done


def rows(folder):
    return [{key: row[key] for key in row if key not in CLOCKS} for row in read_metrics(folder)]


def test_a_training_recovers_from_a_bad_step(tmp_path, config, dataset, spoilt, capsys):
    whole = train(config, tmp_path / "whole", dataset)
    found = rows(tmp_path / "whole")
    variances = np.log([row["variance_per_atom"] for row in found])
    events = [(row["step"], text) for row in found for text in row["taken_back"]]
    [(step, text)] = events
    assert SPOILT + LASTING <= step <= SPOILT + LASTING + 2
    assert text.startswith(f"step {step}: run-away at bcc-")
    assert SPOILT - 3 * 5 < int(text.split()[-1]) <= SPOILT - 5
    assert text in capsys.readouterr().out
    assert found[step - 1]["step_length"] == SHORTER
    before, bad, after = variances[SPOILT - 10 : SPOILT], variances[SPOILT:step], variances[step + 2 :]
    assert bad.mean() - before.mean() > 1  # the step was bad
    assert after.mean() - before.mean() < 4 * before.std(ddof=1) * (1 / 10 + 1 / len(after)) ** 0.5
    # The same in two parts, the cut in the middle of the run-away.
    spoilt.clear()
    train(dataclasses.replace(config, steps=SPOILT + 3), tmp_path / "halves", dataset)
    again = train(config, tmp_path / "halves", dataset, resume=True)
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    assert rows(tmp_path / "halves") == found
