import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fnqs.errors import InputError
from fnqs_data.store.store import write_dataset
from fnqs_data.stream.stream import ConfigurationStream


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
    assert [stream.batch_size(n, True) for n in stream.numbers] == [5, 6, 6]
    for step in range(60):
        batch = stream.batch(step)
        assert len(set(batch.indices.tolist())) == len(batch.indices) == stream.batch_size(batch.number, batch.twisted)
        assert batch.indices.dtype == np.int64
        assert set(dataset.numbers[batch.indices].tolist()) == {batch.number}
        size = len(batch.indices)
        assert batch.configurations.cell.shape == (size, 3, 3)
        assert batch.configurations.protons.shape == (size, batch.number, 3)
        assert batch.configurations.twist.shape == (size, 3)
        for k, i in enumerate(batch.indices):
            assert np.array_equal(batch.configurations.protons[k], dataset[int(i)].configuration.protons)


def test_a_batch_is_at_gamma_or_twisted_never_both(tmp_path, make_record):
    twisted = [make_record(i, 4) for i in range(7)]
    at_gamma = [
        replace(r, configuration=replace(r.configuration, twist=np.zeros(3)), identifier=f"gamma-{r.identifier}")
        for r in twisted
    ]
    dataset = write_dataset(tmp_path / "mixed", twisted + at_gamma)
    stream = ConfigurationStream(dataset, np.arange(14), batch_configurations=3, seed=1)
    kinds = set()
    for step in range(2 * stream.steps_per_epoch):
        batch = stream.batch(step)
        assert np.all(np.any(batch.configurations.twist != 0, axis=1) == batch.twisted)
        kinds.add(batch.twisted)
    assert kinds == {False, True}


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


def test_the_order_is_that_of_numpy_s_permutation(dataset, stream):
    # Runs saved before must go on in the same order, so the formula is written out here once more.
    members = np.flatnonzero(dataset.numbers == 4)
    batches = [indices for s in range(2 * stream.steps_per_epoch) for n, indices in [stream.batch_indices(s)] if n == 4]
    for epoch in range(2):
        order = members[np.random.default_rng((3, 4, epoch)).permutation(20)]
        assert np.array_equal(np.concatenate(batches[3 * epoch : 3 * epoch + 3]), order[:18])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_parts_of_the_processes_make_the_global_batch(dataset, stream, processes):
    parts = [
        ConfigurationStream(dataset, np.arange(73), batch_configurations=6, seed=3, process=p, processes=processes)
        for p in range(processes)
    ]
    assert {part.fingerprint for part in parts} == {stream.fingerprint}
    for step in range(30):
        whole, pieces = stream.batch(step), [part.batch(step) for part in parts]
        assert {piece.number for piece in pieces} == {whole.number}
        assert np.array_equal(np.concatenate([piece.indices for piece in pieces]), whole.indices)
        protons = np.concatenate([piece.configurations.protons for piece in pieces])
        assert np.array_equal(protons, whole.configurations.protons)
        sizes = [len(piece.indices) for piece in pieces]
        assert max(sizes) - min(sizes) <= 1


def test_more_processes_than_configurations_leave_some_without(dataset):
    stream = ConfigurationStream(dataset, np.arange(3), batch_configurations=2, seed=0, process=0, processes=4)
    batch = stream.batch(0)
    assert batch.configurations.protons.shape[0] == len(batch.indices) == 0


def test_a_saved_state_goes_on_with_other_processes_but_not_with_other_data(dataset, stream):
    def other(seed=3, weights=None):
        return ConfigurationStream(
            dataset, np.arange(73), batch_configurations=6, seed=seed, weights=weights, process=1, processes=2
        )

    assert other().resume(stream.state(17)) == 17
    with pytest.raises(InputError, match="saved state"):
        other(seed=4).resume(stream.state(17))
    with pytest.raises(InputError, match="saved state"):
        other(weights=np.linspace(0.5, 1, 73)).resume(stream.state(17))


def test_grain_reads_the_same_batches(stream):
    batches = stream.epochs()
    for step in (0, 11, 12, 40):
        assert np.array_equal(batches[step].indices, stream.batch_indices(step)[1])
    resumed = iter(batches[20:].to_iter_dataset())
    assert [next(resumed).indices.tolist() for _ in range(20)] == [
        stream.batch_indices(step)[1].tolist() for step in range(20, 40)
    ]


def test_equal_weights_change_nothing(dataset, stream):
    weighted = ConfigurationStream(dataset, np.arange(73), batch_configurations=6, seed=3, weights=np.full(73, 0.3))
    assert weighted.fingerprint == stream.fingerprint
    for step in range(40):
        assert np.array_equal(weighted.batch_indices(step)[1], stream.batch_indices(step)[1])


def test_configurations_are_visited_by_their_weights(dataset):
    rng = np.random.default_rng(0)
    weights = rng.choice([0.0, 0.5, 1.0, 2.0], size=73)
    weights[:2] = (2.0, 0.0)
    # One configuration in a batch: nothing is left out for want of a full batch.
    stream = ConfigurationStream(dataset, np.arange(73), batch_configurations=1, seed=3, weights=weights)
    epochs, visits = 400, np.zeros(73)
    for epoch in range(epochs):
        steps = range(epoch * stream.steps_per_epoch, (epoch + 1) * stream.steps_per_epoch)
        seen = np.concatenate([stream.batch_indices(step)[1] for step in steps])
        assert len(set(seen.tolist())) == len(seen)  # at most once in an epoch, so never twice in a batch
        visits[seen] += 1
    assert np.all(visits[weights == 0] == 0)
    # The drawing is exact but for rounding each bucket's visits down to a whole number: below 1 in 8 (N = 4).
    # Binomial noise in 400 epochs is at most 10; five times that.
    expected = epochs * weights / 2
    for number in (2, 4, 8):
        chosen = dataset.numbers == number
        lost = int(expected[chosen].sum() / epochs) / (expected[chosen].sum() / epochs)
        assert np.all(np.abs(visits[chosen] - lost * expected[chosen]) <= 50)
    assert np.all(visits[weights == 2] >= visits[weights == 1].max())


@pytest.mark.parametrize("weights", [np.zeros(73), np.full(73, np.nan), -np.ones(73), np.ones(72)])
def test_senseless_weights_are_input_errors(dataset, weights):
    with pytest.raises(InputError, match="weights"):
        ConfigurationStream(dataset, np.arange(73), batch_configurations=6, seed=3, weights=weights)


def test_a_process_that_does_not_exist_is_an_input_error(dataset):
    with pytest.raises(InputError, match="process 2"):
        ConfigurationStream(dataset, np.arange(73), batch_configurations=6, seed=3, process=2, processes=2)


@pytest.mark.parametrize(("indices", "size", "seed"), [([], 6, 3), ([1], 0, 3), ([1], 6, -1)])
def test_senseless_streams_are_input_errors(dataset, indices, size, seed):
    with pytest.raises(InputError):
        ConfigurationStream(dataset, np.array(indices, dtype=np.int64), batch_configurations=size, seed=seed)


def test_true_processes_survive_kills(tmp_path):
    # Fifty trials are in tests/benchmarks/stream_restart.py; two of them here.
    script = Path(__file__).parents[1] / "benchmarks" / "stream_restart.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path, "2", "5"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout.endswith("2 of 2 trials identical\n"), done.stdout + done.stderr
    assert done.returncode == 0
