import os
import threading
from dataclasses import replace

import jax
import numpy as np
import pytest

from fnqs.errors import InputError
from fnqs.system import make_system, stack_systems
from fnqs_data.store.write import write_dataset
from fnqs_data.stream import pipeline, prepared_systems
from fnqs_data.stream.pipeline import STEPS_AHEAD, StoredConfigurations, share_batches
from fnqs_data.stream.prepared_systems import PreparedSystems
from fnqs_data.stream.stream import ConfigurationStream


@pytest.fixture
def dataset(tmp_path, make_record):
    sizes = {2: 5, 4: 20, 8: 48}
    records = [make_record(100 * n + i, n) for n, size in sizes.items() for i in range(size)]
    return write_dataset(tmp_path / "set", records)


@pytest.fixture
def stream(dataset):
    return ConfigurationStream(dataset, np.arange(len(dataset)), batch_configurations=6, seed=3)


def rows(stored: StoredConfigurations) -> list[dict[str, np.ndarray]]:
    """Stack what is stored as it is: the place and the protons of every configuration."""
    protons = np.asarray(stored.configurations.protons)
    return [{"index": np.array(index), "protons": protons[k]} for k, index in enumerate(stored.indices)]


def take(stream, start, stop, process=0, processes=1, prepare=rows):
    """All shares of some steps."""
    shares = share_batches(stream, prepare, start=start, stop=stop, process=process, processes=processes)
    try:
        return list(shares)
    finally:
        shares.close()


@pytest.mark.parametrize("cores", [1, 8, 32])  # one thread, four and eight
@pytest.mark.parametrize("processes", [1, 2, 4, 9])
def test_the_shares_of_the_processes_make_the_batches(dataset, stream, processes, cores, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    steps = range(7, 33)
    shares = [take(stream, steps.start, steps.stop, process, processes) for process in range(processes)]
    for step, parts in zip(steps, zip(*shares, strict=True), strict=True):
        indices = stream.batch(step).indices
        assert {len(part["index"]) for part in parts} == {-(-len(indices) // processes)}
        together = np.concatenate([part["index"] for part in parts])
        assert np.array_equal(together[: len(indices)], indices)
        assert set(together.tolist()) == set(indices.tolist())
        protons = np.concatenate([part["protons"] for part in parts])
        for place, index in zip(protons, together, strict=True):
            assert np.array_equal(place, dataset[int(index)].configuration.protons)


def test_a_resumed_pipeline_goes_on_in_other_processes(stream):
    whole = take(stream, 0, 30)
    first, second = (take(stream, 13, 30, process, 2) for process in range(2))
    for one, *halves in zip(whole[13:], first, second, strict=True):
        joined = np.concatenate([half["index"] for half in halves])
        assert np.array_equal(joined[: len(one["index"])], one["index"])
    assert take(stream, 30, 30) == []


def test_systems_are_those_of_the_records(dataset, stream, small_model):
    for keep_bytes in (0, 10**9):
        systems = take(stream, 0, 14, prepare=PreparedSystems(small_model, keep_bytes))
        for step in (0, 13):
            records = [dataset[int(i)] for i in stream.batch(step).indices]
            alone = stack_systems([make_system(record.configuration, small_model) for record in records])
            for left, right in zip(jax.tree.leaves(systems[step]), jax.tree.leaves(alone), strict=True):
                assert np.array_equal(left, right)


def test_only_the_own_share_is_prepared_and_only_a_few_steps_ahead(stream):
    seen, lock = [], threading.Lock()

    def prepare(stored):
        with lock:
            seen.extend(stored.indices.tolist())
        return rows(stored)

    shares = share_batches(stream, prepare, start=0, stop=10**6, process=1, processes=2)
    for _ in range(5):
        next(shares)
    shares.close()
    ahead = STEPS_AHEAD + 3  # one stacked, one being stacked, and one that is waited for
    assert 5 * 3 <= len(seen) <= (5 + ahead) * 3
    allowed = {int(i) for step in range(5 + ahead) for i in np.roll(stream.batch(step).indices, -3)[:3]}
    assert set(seen) <= allowed


def counted(monkeypatch):
    """Count the systems that are made."""
    made, lock = [], threading.Lock()

    def make(configuration, model):
        with lock:
            made.append(configuration)
        return make_system(configuration, model)

    monkeypatch.setattr(prepared_systems, "make_system", make)
    return made


def test_systems_are_kept_for_the_next_visit_within_their_memory(stream, small_model, monkeypatch):
    made = counted(monkeypatch)
    take(stream, 0, 3 * stream.steps_per_epoch, prepare=PreparedSystems(small_model, 10**9))
    assert len(made) <= 73
    visits = sum(len(stream.batch(step).indices) for step in range(2 * stream.steps_per_epoch))
    made.clear()
    take(stream, 0, 2 * stream.steps_per_epoch, prepare=PreparedSystems(small_model, 0))
    assert len(made) == visits


def test_threads_that_want_the_same_system_make_it_once(dataset, small_model, monkeypatch):
    made, systems = counted(monkeypatch), PreparedSystems(small_model, 10**9)
    stored = StoredConfigurations(np.arange(6), dataset.configurations(np.arange(5, 11)))
    start, found = threading.Barrier(4), []

    def ask():
        start.wait()
        found.append(systems(stored))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert all(one is other for several in found for one, other in zip(several, found[0], strict=True))


def test_what_a_thread_finds_wrong_reaches_the_training(tmp_path, make_record, small_model):
    twisted = [make_record(i, 4) for i in range(4)]
    dataset = write_dataset(tmp_path / "twisted", twisted)
    stream = ConfigurationStream(dataset, np.arange(4), batch_configurations=2, seed=1)
    plane_waves = replace(small_model, antisymmetric="plane_waves")
    for _ in range(2):  # a failure must not leave anyone waiting for its system
        with pytest.raises(InputError, match="takes no twist"):
            take(stream, 0, 2, prepare=PreparedSystems(plane_waves, 10**9))


def test_a_closed_pipeline_makes_no_more_systems(stream, small_model, monkeypatch):
    made, systems = counted(monkeypatch), PreparedSystems(small_model, 10**9)
    shares = share_batches(stream, systems, start=0, stop=100)
    next(shares)
    systems.close()
    shares.close()
    before = len(made)
    with pytest.raises(RuntimeError, match="closed"):
        systems(StoredConfigurations(np.array([0]), stream.dataset.configurations([0])))
    assert len(made) <= before + pipeline.MOST_THREADS
