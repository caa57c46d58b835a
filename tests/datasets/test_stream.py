from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fnqs.errors import InputError
from fnqs_data.store.write import write_dataset
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
    assert [bucket.size for bucket in stream.buckets] == [5, 6, 6]
    assert stream.largest_batch == 6
    for step in range(60):
        batch = stream.batch(step)
        assert len(set(batch.indices.tolist())) == len(batch.indices) == {2: 5, 4: 6, 8: 6}[batch.number]
        assert batch.indices.dtype == np.int64
        assert set(dataset.n_atoms[batch.indices].tolist()) == {batch.number}


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
        assert np.all(np.any(dataset.configurations(batch.indices).twist != 0, axis=1) == batch.twisted)
        kinds.add(batch.twisted)
    assert kinds == {False, True}


def test_any_step_can_be_asked_for_in_any_order(dataset, stream):
    forward = [stream.batch(step) for step in range(40)]
    again = ConfigurationStream(dataset, np.arange(len(dataset)), batch_configurations=6, seed=3)
    for step in reversed(range(40)):
        batch = again.batch(step)
        assert batch.number == forward[step].number
        assert np.array_equal(batch.indices, forward[step].indices)


def test_one_epoch_visits_everything_that_fits_once(stream):
    visits = Counter()
    for step in range(stream.steps_per_epoch):
        visits.update(stream.batch(step).indices.tolist())
    # 5 of N = 2, 18 of the 20 with N = 4 and all 48 with N = 8 fill whole batches.
    assert set(visits.values()) == {1}
    assert len(visits) == 5 + 18 + 48


def test_all_are_visited_equally_often_in_the_long_run(stream):
    epochs = 200
    visits = Counter()
    for step in range(epochs * stream.steps_per_epoch):
        visits.update(stream.batch(step).indices.tolist())
    assert len(visits) == 73
    # N = 4 leaves 2 of 20 out in each epoch: mean 180, standard deviation sqrt(200 * 0.9 * 0.1) = 4.2.
    for index, count in visits.items():
        expected = 180 if 5 <= index < 25 else 200
        assert abs(count - expected) <= (5 * 4.3 if expected == 180 else 0)


def test_buckets_are_spread_over_the_epoch(stream):
    numbers = [stream.batch(step).number for step in range(stream.steps_per_epoch)]
    assert Counter(numbers) == {8: 8, 4: 3, 2: 1}
    assert {8, 4} <= set(numbers[:4])
    assert {8, 4} <= set(numbers[-4:])


def test_epochs_are_shuffled_differently(stream):
    def order(epoch):
        steps = range(epoch * stream.steps_per_epoch, (epoch + 1) * stream.steps_per_epoch)
        return [i for s in steps for i in stream.batch(s).indices.tolist()]

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
    members = np.flatnonzero(dataset.n_atoms == 4)
    everything = [stream.batch(step) for step in range(2 * stream.steps_per_epoch)]
    batches = [batch.indices for batch in everything if batch.number == 4]
    for epoch in range(2):
        order = members[np.random.default_rng((3, 4, epoch)).permutation(20)]
        assert np.array_equal(np.concatenate(batches[3 * epoch : 3 * epoch + 3]), order[:18])


def test_a_saved_run_goes_on_with_its_own_data_only(dataset, stream):
    def other(seed=3, weights=None):
        return ConfigurationStream(dataset, np.arange(73), batch_configurations=6, seed=seed, weights=weights)

    other().check_resume(stream.fingerprint, "runs/one")
    for changed in (other(seed=4), other(weights=np.linspace(0.5, 1, 73))):
        with pytest.raises(InputError, match=r"^runs/one: the run was trained on other data"):
            changed.check_resume(stream.fingerprint, "runs/one")


def test_equal_weights_change_nothing(dataset, stream):
    weighted = ConfigurationStream(dataset, np.arange(73), batch_configurations=6, seed=3, weights=np.full(73, 0.3))
    assert weighted.fingerprint == stream.fingerprint
    for step in range(40):
        assert np.array_equal(weighted.batch(step).indices, stream.batch(step).indices)


def test_configurations_are_visited_by_their_weights(dataset):
    rng = np.random.default_rng(0)
    weights = rng.choice([0.0, 0.5, 1.0, 2.0], size=73)
    weights[:2] = (2.0, 0.0)
    # One configuration in a batch: nothing is left out for want of a full batch.
    stream = ConfigurationStream(dataset, np.arange(73), batch_configurations=1, seed=3, weights=weights)
    epochs, visits = 400, np.zeros(73)
    for epoch in range(epochs):
        steps = range(epoch * stream.steps_per_epoch, (epoch + 1) * stream.steps_per_epoch)
        seen = np.concatenate([stream.batch(step).indices for step in steps])
        assert len(set(seen.tolist())) == len(seen)  # at most once in an epoch, so never twice in a batch
        visits[seen] += 1
    assert np.all(visits[weights == 0] == 0)
    # The drawing is exact but for rounding each bucket's visits down to a whole number: below 1 in 8 (N = 4).
    # Binomial noise in 400 epochs is at most 10; five times that.
    expected = epochs * weights / 2
    for number in (2, 4, 8):
        chosen = dataset.n_atoms == number
        lost = int(expected[chosen].sum() / epochs) / (expected[chosen].sum() / epochs)
        assert np.all(np.abs(visits[chosen] - lost * expected[chosen]) <= 50)
    assert np.all(visits[weights == 2] >= visits[weights == 1].max())


@pytest.mark.parametrize("weights", [np.zeros(73), np.full(73, np.nan), -np.ones(73), np.ones(72)])
def test_senseless_weights_are_input_errors(dataset, weights):
    with pytest.raises(InputError, match="weights"):
        ConfigurationStream(dataset, np.arange(73), batch_configurations=6, seed=3, weights=weights)


@pytest.mark.parametrize(("indices", "size", "seed"), [([], 6, 3), ([1], 0, 3), ([1], 6, -1)])
def test_senseless_streams_are_input_errors(dataset, indices, size, seed):
    with pytest.raises(InputError):
        ConfigurationStream(dataset, np.array(indices, dtype=np.int64), batch_configurations=size, seed=seed)
