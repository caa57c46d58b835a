import numpy as np
import pytest

from fnqs.errors import InputError
from fnqs_train.distributed.sharded_arrays import read_arrays, write_arrays
from fnqs_train.walkers import START_WIDTH, Population

NUMBERS = np.array([2, 4, 2, 8, 4, 2])
CHOSEN = np.array([0, 1, 2, 4])  # two of N = 2, two of N = 4; the last N = 2 and the N = 8 are held out


def visit(population, number, indices, value, step=0):
    indices = np.array(indices)
    shape = (len(indices), population.walkers, number, 3)
    positions = np.full(shape, value, np.float32)
    population.put(number, indices, positions, np.full(len(indices), 0.5), step)


def test_all_are_fresh_until_they_are_visited():
    population = Population(NUMBERS, CHOSEN, walkers=3)
    positions, widths, fresh = population.take(4, np.array([4, 1]))
    assert positions.shape == (2, 3, 4, 3)
    assert positions.dtype == np.float32
    assert widths.tolist() == [START_WIDTH] * 2
    assert fresh.all()
    visit(population, 4, [4], 7.0)
    positions, widths, fresh = population.take(4, np.array([1, 4]))
    assert fresh.tolist() == [True, False]
    assert np.all(positions[1] == 7.0)
    assert widths.tolist() == [START_WIDTH, 0.5]
    assert population.take(2, np.array([0, 2]))[2].all()
    assert population.visited == 1


def test_taken_walkers_are_copies():
    population = Population(NUMBERS, CHOSEN, walkers=2)
    visit(population, 2, [0, 2], 1.0)
    population.take(2, np.array([0, 2]))[0][:] = np.nan
    assert np.all(population.take(2, np.array([0, 2]))[0] == 1.0)


def test_forgotten_ones_start_again():
    population = Population(NUMBERS, CHOSEN, walkers=2)
    visit(population, 2, [0, 2], 1.0)
    population.forget(2, np.array([2]))
    _, widths, fresh = population.take(2, np.array([0, 2]))
    assert fresh.tolist() == [False, True]
    assert widths.tolist() == [0.5, START_WIDTH]
    assert population.visited == 1


def test_a_saved_state_comes_back(tmp_path):
    population = Population(NUMBERS, CHOSEN, walkers=2)
    visit(population, 2, [2], 1.0)
    visit(population, 4, [1, 4], 2.0)
    saved = population.state()
    saved["n002"]["variance"] = np.ones(2, np.float32)  # as older versions have saved
    write_arrays(tmp_path, saved)
    state = read_arrays(tmp_path)
    again = Population(NUMBERS, CHOSEN, walkers=2)
    again.restore(state)
    assert again.visited == 3
    for number, indices in ((2, [0, 2]), (4, [1, 4])):
        for left, right in zip(
            population.take(number, np.array(indices)), again.take(number, np.array(indices)), strict=True
        ):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("chosen", "walkers"), [(CHOSEN, 1), (CHOSEN, 4), (CHOSEN[:3], 2), (np.arange(6), 2)])
def test_a_state_of_other_data_or_another_number_of_walkers_is_refused(tmp_path, chosen, walkers):
    write_arrays(tmp_path, Population(NUMBERS, chosen, walkers=2 if len(chosen) != 4 else walkers).state())
    state = read_arrays(tmp_path)
    with pytest.raises(InputError, match="other data or another number of walkers"):
        Population(NUMBERS, CHOSEN, walkers=2).restore(state)


def test_ages_count_from_the_last_visit():
    population = Population(NUMBERS, CHOSEN, walkers=2)
    assert population.ages(2, np.array([0, 2]), 7).tolist() == [0, 0]
    visit(population, 2, [0], 1.0, step=3)
    assert population.ages(2, np.array([0, 2]), 7).tolist() == [4, 0]
    population.forget(2, np.array([0]))
    assert population.ages(2, np.array([0]), 9).tolist() == [0]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_any_number_of_processes_restores_the_same_walkers(tmp_path, processes):
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(2, 4, 2, 3)).astype(np.float32)
    for process in range(2):
        population = Population(NUMBERS, CHOSEN, 4, process=process, processes=2)
        ones = np.ones(2, np.float32)
        population.put(2, np.array([2, 0]), whole[:, 2 * process : 2 * process + 2], 0.5 * ones, 5)
        write_arrays(tmp_path, population.state(), first=process == 0)
    taken = []
    for process in range(processes):
        population = Population(NUMBERS, CHOSEN, 4, process=process, processes=processes)
        population.restore(read_arrays(tmp_path, process, processes))
        taken.append(population.take(2, np.array([2, 0]))[0])
        assert population.ages(2, np.array([0]), 6).tolist() == [1]
    np.testing.assert_array_equal(np.concatenate(taken, axis=1), whole)


def test_shares_that_are_missing_or_cannot_be_cut_are_named(tmp_path):
    for process in range(2):
        population = Population(NUMBERS, CHOSEN, 4, process=process, processes=2)
        write_arrays(tmp_path, population.state(), first=process == 0)
    with pytest.raises(InputError, match="4 walkers cannot be shared by 3 processes"):
        read_arrays(tmp_path, 0, 3)
    (tmp_path / "n004" / "positions.axis-1.share-1-of-2.npy").unlink()
    with pytest.raises(InputError, match="2 shares of positions were written, but only 1 are here"):
        read_arrays(tmp_path)


def test_memory_for_the_full_data_set_is_reserved_without_being_touched():
    """17,500 configurations of N = 54 with 64 walkers: 726 MB, and less than 2 GB with the copy that a save takes."""
    population = Population(np.full(17_500, 54), np.arange(17_500), 64)
    size = sum(array.nbytes for array in population.state()["n054"].values() if isinstance(array, np.ndarray))
    positions = population.state()["n054"]["positions"].values.nbytes
    assert positions == 17_500 * 64 * 54 * 3 * 4
    assert 2 * (positions + size) < 2e9
