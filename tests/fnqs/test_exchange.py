"""Exchange moves: detailed balance against distributions that are known exactly."""

import itertools
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.periodic.smooth_distance import SmoothLattice, smooth_lattice
from fnqs.sampling.exchange import EVERY, exchanged, metropolis_with_exchange

POINTS = np.array([[0, 0, 0], [1.1, 0, 0], [0, 1.7, 0.2], [2.1, 0.4, -1.3]])
CELL = np.array([[6.0, 0, 0], [1, 7, 0], [0, -1, 6]])
STIFFNESS = (0.1, 0.35)
"""Of spin up and spin down, 1/bohr^2: so that it matters which electron sits where."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrapContext:
    """What the exchange asks of a configuration."""

    lattice: SmoothLattice
    r_s: jax.Array


@dataclass(frozen=True)
class TwoTraps:
    """|psi|^2 = exp(-sum of stiffness r^2), another stiffness for each spin."""

    def log_psi(self, params, context, electrons):
        half = len(electrons) // 2
        squares = jnp.sum(electrons**2, axis=1)
        return jnp.ones(()), -0.5 * (STIFFNESS[0] * jnp.sum(squares[:half]) + STIFFNESS[1] * jnp.sum(squares[half:]))


@pytest.fixture(scope="module")
def contexts():
    lattice = smooth_lattice(CELL)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], TrapContext(lattice, np.float64(1.5)))


def test_chances_there_and_back_are_those_of_the_proposal(contexts):
    """The way back is drawn with the probability that the logarithm of the ratio says, for every pair."""
    lattice = jax.tree.map(lambda leaf: leaf[0], contexts.lattice)
    grid = (np.arange(4000) + 0.5) / 4000
    draw = jax.jit(jax.vmap(lambda r, u, v: exchanged(lattice, np.float64(1.2), r, u, v), (None, None, 0)))
    for up in (0.25, 0.75):
        first = int(up * 2)
        trials, logs = draw(POINTS, up, grid)
        for place in (2, 3):
            chosen = np.asarray(jnp.all(trials[:, place] == POINTS[first], axis=1))
            assert chosen.any()
            there = trials[np.argmax(chosen)]
            np.testing.assert_array_equal(np.sort(there, axis=0), np.sort(POINTS, axis=0))
            returned, _ = draw(there, up, grid)
            back = np.mean(np.all(np.asarray(returned) == POINTS, axis=(1, 2)))
            # Shares of a grid of 4000 are exact to 1/4000 of chances of 0.1 and more.
            assert np.exp(float(logs[np.argmax(chosen)])) == pytest.approx(back / np.mean(chosen), rel=6e-3)


def test_arrangements_have_the_frequencies_of_the_density(contexts):
    """With moves too short to matter, the chain goes from one arrangement of four points to another."""
    number, sweeps = 12000, 100
    walkers = jnp.broadcast_to(jnp.asarray(POINTS), (1, number, 4, 3))
    move = partial(metropolis_with_exchange, TwoTraps(), {}, contexts)
    moved, _ = jax.jit(lambda r, k: move(r, np.array([1e-9]), k, sweeps))(walkers, jax.random.key(3))
    places = np.argmin(np.sum((np.asarray(moved[0])[:, :, None] - POINTS) ** 2, axis=-1), axis=2)
    counts = {frozenset(pair): 0 for pair in itertools.combinations(range(4), 2)}
    for ups in places[:, :2]:
        counts[frozenset(ups.tolist())] += 1
    squares = np.sum(POINTS**2, axis=1)
    weights = np.array([np.exp(-sum(squares[i] * STIFFNESS[i not in ups] for i in range(4))) for ups in counts])
    expected = number * weights / weights.sum()
    assert expected.max() > 3 * expected.min()  # the test can fail: the frequencies differ
    chi = float(np.sum((np.array(list(counts.values())) - expected) ** 2 / expected))
    assert chi < 25.7  # chi squared with 5 degrees of freedom: once in 10,000


def test_moves_and_exchanges_together_sample_the_density(contexts):
    """Both traps keep their own widths, at any number of sweeps, a traced one as well."""
    move = jax.jit(lambda r, k, s: metropolis_with_exchange(TwoTraps(), {}, contexts, r, np.array([1.1]), k, s))
    walkers = jnp.zeros((1, 4000, 2, 3), jnp.float64)
    walkers, acceptance = move(walkers, jax.random.key(0), 151)
    assert 0.2 < float(acceptance[0]) < 0.8
    square = np.asarray(jnp.mean(walkers[0] ** 2, axis=(0, 2)))
    # 12,000 coordinates of each spin, sqrt(2 / 12,000) = 1.3 %; four of those.
    np.testing.assert_allclose(square, 0.5 / np.array(STIFFNESS), rtol=0.052)


@pytest.mark.parametrize("every", [2, EVERY, 5])
def test_one_turn_of_so_many_is_an_exchange_and_never_the_first(contexts, every):
    walkers = jnp.broadcast_to(jnp.asarray(POINTS), (1, 400, 4, 3))
    move = jax.jit(
        lambda key, sweeps: metropolis_with_exchange(
            TwoTraps(), {}, contexts, walkers, np.array([1e-6]), key, sweeps, every=every
        )
    )
    turns = []
    for seed in range(20):
        exchanged = []
        for sweeps in range(1, every + 1):
            moved, acceptance = move(jax.random.key(seed), sweeps)
            assert float(acceptance[0]) > 0.99  # of the short moves alone
            far = np.abs(np.asarray(moved - walkers)).max(axis=3) > 0.1
            assert far.sum(axis=2).max() <= 2  # electrons of a walker: no second exchange
            exchanged.append(bool(far.any()))
        assert exchanged == sorted(exchanged)  # what one has exchanged stays so
        assert exchanged[-1]
        turns.append(exchanged.index(True))
    assert sorted(set(turns)) == list(range(1, every))  # each of the others in some call, 20 of them
