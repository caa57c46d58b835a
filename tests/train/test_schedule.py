import numpy as np
import pytest

from fnqs.errors import InputError
from fnqs_data.store.store import write_dataset
from fnqs_data.stream.stream import ConfigurationStream
from fnqs_train.distributed.sharded_arrays import read_arrays, write_arrays
from fnqs_train.schedule import LARGEST, ROUND, Schedule
from fnqs_train.walkers import Population

COUNT, SIZE = 24, 4


@pytest.fixture(scope="module")
def stream(tmp_path_factory, make_bcc):
    dataset = write_dataset(tmp_path_factory.mktemp("data") / "set", [make_bcc(i) for i in range(COUNT)])
    return ConfigurationStream(dataset, np.arange(COUNT), batch_configurations=SIZE, seed=0)


def make_population() -> Population:
    return Population(np.full(COUNT, 2), np.arange(COUNT), walkers=2)


def visit(population, indices, variances, step):
    size = len(indices)
    positions, widths = np.zeros((size, 2, 2, 3), np.float32), np.ones(size, np.float32)
    population.put(2, np.array(indices), positions, widths, widths, np.asarray(variances, np.float32), step)


def run(schedule, population, first, last, chosen):
    """Steps with the prefetch of a training: the choice is made three steps before it is used."""
    ahead = {}
    for step in range(first, last):
        schedule.begin(step, population)
        for following in range(step, step + 4):
            ahead.setdefault(following, schedule.choose(following))
        indices = ahead.pop(step)
        chosen.append(indices.tolist())
        visit(population, indices, 0.01 * (1.0 + indices), step)


def test_batches_hold_different_configurations_and_all_are_visited(stream):
    schedule, population, chosen = Schedule(stream, np.arange(COUNT), 0), make_population(), []
    run(schedule, population, 0, 200, chosen)
    assert all(len(set(batch)) == SIZE for batch in chosen)
    assert population.visited == COUNT
    counts = np.bincount(np.ravel(chosen[2 * ROUND :]), minlength=COUNT)
    # Four times the variance is twice the weight; draws without replacement and ages even it out somewhat.
    assert counts[18:].sum() > 1.3 * counts[:6].sum()
    assert counts.min() > 0


def test_a_resumed_run_makes_the_same_choices(stream, tmp_path):
    whole: list = []
    run(Schedule(stream, np.arange(COUNT), 0), make_population(), 0, 180, whole)
    for stop in (ROUND - 2, ROUND, 2 * ROUND + 7):  # ahead of a round, at its beginning, in its middle
        halves: list = []
        schedule, population = Schedule(stream, np.arange(COUNT), 0), make_population()
        run(schedule, population, 0, stop, halves)
        write_arrays(tmp_path / str(stop), population.state() | schedule.state())
        saved = read_arrays(tmp_path / str(stop))
        schedule, population = Schedule(stream, np.arange(COUNT), 0), make_population()
        population.restore(saved)
        schedule.restore(saved)
        run(schedule, population, stop, 180, halves)
        assert halves == whole


def test_never_visited_ones_come_first(stream):
    schedule, population = Schedule(stream, np.arange(COUNT), 0), make_population()
    visit(population, range(1, COUNT), np.full(COUNT - 1, 0.1), 0)
    for step in (0, ROUND):
        schedule.begin(step, population)
    drawn = np.ravel([schedule.choose(step) for step in range(ROUND, 2 * ROUND)])
    others = (len(drawn) - np.sum(drawn == 0)) / (COUNT - 1)
    assert np.sum(drawn == 0) > LARGEST * others / 2


def test_a_run_without_a_schedule_cannot_be_resumed_with_one(stream):
    with pytest.raises(InputError, match="the saved run has no schedule"):
        Schedule(stream, np.arange(COUNT), 0).restore(make_population().state())
