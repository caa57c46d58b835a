from collections import Counter

import numpy as np
import pytest

from fnqs.errors import InputError
from fnqs_data.store import write_dataset
from fnqs_data.stream import ConfigurationStream


@pytest.fixture
def dataset(tmp_path, make_record):
    sizes = {2: 5, 4: 20, 8: 48}
    records = [make_record(100 * n + i, n) for n, size in sizes.items() for i in range(size)]
    return write_dataset(tmp_path / "set", records)


@pytest.fixture
def stream(dataset):
    return ConfigurationStream(dataset, np.arange(len(dataset)), batch_configurations=6, seed=3)


def test_a_batch_holds_different_configurations_of_one_number(dataset, stream):
    assert stream.numbers == (2, 4, 8)
    assert [stream.batch_size(n) for n in stream.numbers] == [5, 6, 6]
    for step in range(60):
        batch = stream.batch(step)
        assert len(set(batch.indices.tolist())) == len(batch.indices) == stream.batch_size(batch.number)
        assert batch.indices.dtype == np.int64
        assert set(dataset.numbers[batch.indices].tolist()) == {batch.number}
        size = len(batch.indices)
        assert batch.configurations.cell.shape == (size, 3, 3)
        assert batch.configurations.protons.shape == (size, batch.number, 3)
        assert batch.configurations.twist.shape == (size, 3)
        for k, i in enumerate(batch.indices):
            assert np.array_equal(batch.configurations.protons[k], dataset[int(i)].configuration.protons)


def test_any_step_can_be_asked_for_in_any_order(dataset, stream):
    forward = [stream.batch_indices(step) for step in range(40)]
    again = ConfigurationStream(dataset, np.arange(len(dataset)), batch_configurations=6, seed=3)
    for step in reversed(range(40)):
        number, indices = again.batch_indices(step)
        assert number == forward[step][0]
        assert np.array_equal(indices, forward[step][1])


def test_one_epoch_visits_everything_that_fits_once(stream):
    visits = Counter()
    for step in range(stream.steps_per_epoch):
        visits.update(stream.batch_indices(step)[1].tolist())
    # 5 of N = 2, 18 of the 20 with N = 4 and all 48 with N = 8 fill whole batches.
    assert set(visits.values()) == {1}
    assert len(visits) == 5 + 18 + 48


def test_all_are_visited_equally_often_in_the_long_run(stream):
    epochs = 200
    visits = Counter()
    for step in range(epochs * stream.steps_per_epoch):
        visits.update(stream.batch_indices(step)[1].tolist())
    assert len(visits) == 73
    # N = 4 leaves 2 of 20 out in each epoch: mean 180, standard deviation sqrt(200 * 0.9 * 0.1) = 4.2.
    for index, count in visits.items():
        expected = 180 if 5 <= index < 25 else 200
        assert abs(count - expected) <= (5 * 4.3 if expected == 180 else 0)


def test_buckets_are_spread_over_the_epoch(stream):
    numbers = [stream.batch_indices(step)[0] for step in range(stream.steps_per_epoch)]
    assert Counter(numbers) == {8: 8, 4: 3, 2: 1}
    assert {8, 4} <= set(numbers[:4])
    assert {8, 4} <= set(numbers[-4:])


def test_epochs_are_shuffled_differently(stream):
    def order(epoch):
        steps = range(epoch * stream.steps_per_epoch, (epoch + 1) * stream.steps_per_epoch)
        return [i for s in steps for i in stream.batch_indices(s)[1].tolist()]

    assert order(0) != order(1)


def test_fingerprint_tells_data_selection_batch_and_seed_apart(dataset, stream, tmp_path):
    everything = np.arange(len(dataset))

    def fingerprint(data=dataset, indices=everything, size=6, seed=3):
        return ConfigurationStream(data, indices, batch_configurations=size, seed=seed).fingerprint

    other = write_dataset(tmp_path / "other", [dataset[i] for i in range(72, -1, -1)])
    prints = [fingerprint(), fingerprint(other), fingerprint(indices=everything[:-1])]
    prints += [fingerprint(size=5), fingerprint(seed=4)]
    assert prints[0] == stream.fingerprint
    assert len(set(prints)) == 5


@pytest.mark.parametrize(("indices", "size", "seed"), [([], 6, 3), ([1], 0, 3), ([1], 6, -1)])
def test_senseless_streams_are_input_errors(dataset, indices, size, seed):
    with pytest.raises(InputError):
        ConfigurationStream(dataset, np.array(indices, dtype=np.int64), batch_configurations=size, seed=seed)
