"""The last pair: one smooth form from degenerate shells to closed ones, of definite spin, with no choice by index."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.ansatz.geminal import Pairing, log_pairs, pairing_matrix
from fnqs.ansatz.open_shell import PARTNERS, chemical_potential, occupations
from fnqs.ansatz.orbital_basis import make_orbital_basis
from fnqs.ansatz.pair_blocking import room_for_a_pair
from fnqs.ansatz.pair_numbers import LEAST_LAST_PAIR, RATIO_RANGE, START_LAST_PAIR, last_pair_of
from fnqs.configuration import make_configuration
from fnqs.model_config import ModelConfig

CONFIG = ModelConfig(s_exponents=(1.0, 0.3), p_exponents=())
RING = 1.8 * np.diag([4.0, 4.0, 4.0])
SITES = 1.8 * np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])
CUBE = 3.2 * np.eye(3)
GRID = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3, indexing="ij"), -1).reshape(-1, 3)


def shell_of(protons, cell=RING, spin="singlet"):
    config = ModelConfig(s_exponents=(1.0, 0.3), p_exponents=(), spin=spin)
    return make_orbital_basis(make_configuration(cell, protons), config).shell


def last_pair(shell):
    """The last pair between basis functions, which do not depend on how degenerate levels are combined."""
    return shell.levels @ shell.state @ shell.levels.T


def test_four_atoms_in_a_ring_have_two_levels_for_the_last_pair():
    """k = 0 is full. Of the singlets of one pair in k = +-1, cc + ss has the highest repulsion; it is not chosen."""
    shell = shell_of(SITES)
    assert shell.fillings[0] == 1
    assert shell.closed < 1e-3
    sizes = np.linalg.eigvalsh(shell.state)
    np.testing.assert_allclose(sizes[[0, -1]], [-np.sqrt(0.5), np.sqrt(0.5)], atol=0.05)
    assert shell.fillings[1] == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(("spin", "sign"), [("singlet", 1), ("triplet", -1)])
def test_the_spin_is_that_of_the_pair(spin, sign):
    state = shell_of(SITES, spin=spin).state
    np.testing.assert_allclose(state, sign * state.T, atol=1e-12)
    assert np.linalg.norm(state) == pytest.approx(1, abs=1e-3)


def test_a_gap_closes_the_shell():
    """As the ring dimerises the last pair settles in the level below the gap, and nothing is left beside it."""
    shares = []
    for shift in (0.0, 0.1, 0.2, 0.4):
        shell = shell_of(SITES - shift * np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]))
        assert shell.closed**2 + np.sum(shell.state**2) == pytest.approx(1, abs=1e-12)
        shares.append(float(shell.closed))
    assert shares == sorted(shares)
    assert shares[-1] > 0.98


def test_a_full_shell_leaves_the_pair_no_choice():
    """Four pairs in the lowest and three equal levels of a cube of eight protons: closed, though three are equal."""
    shell = shell_of(CUBE[0, 0] * GRID, 2 * CUBE)
    assert shell.closed > 0.95


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["ring", "cube"]))
def test_no_step_along_a_path_changes_the_pair_by_more_than_the_path(seed, kind):
    """Halving the step of a random path halves the change of the pair: no threshold is crossed anywhere."""
    generator = np.random.default_rng(seed)
    protons, cell = (SITES, RING) if kind == "ring" else (CUBE[0, 0] * GRID, 2 * CUBE)
    start = protons + 0.3 * generator.normal(size=protons.shape)
    direction = generator.normal(size=protons.shape)

    def change(distance):
        one, other = (shell_of(start + x * direction, cell) for x in (0.0, distance))
        first, second = last_pair(one), last_pair(other)
        size = np.abs(first).max() + 1e-3
        sign = 1 if np.sum(first * second) >= 0 else -1
        return max(
            abs(one.closed - other.closed),
            np.abs(first - sign * second).max() / size if np.abs(first).max() > 1e-6 else 0.0,
            np.abs(one.fillings - other.fillings).max(),
        )

    assert change(1e-9) < 1e-5


@pytest.mark.parametrize("displacement", [0.0, 0.2])
def test_the_pair_does_not_depend_on_the_order_of_the_protons(displacement):
    generator = np.random.default_rng(1)
    protons = SITES + displacement * generator.normal(size=SITES.shape)
    order = generator.permutation(4)
    functions = (2 * order[:, None] + np.arange(2)).ravel()
    one, other = last_pair(shell_of(protons)), last_pair(shell_of(protons[order]))
    turned = one[np.ix_(functions, functions)]
    sign = 1 if np.sum(turned * other) >= 0 else -1
    np.testing.assert_allclose(sign * other, turned, atol=1e-9 * np.abs(one).max())


@settings(max_examples=5, deadline=None)
@given(st.floats(1e-12, 1e-9), st.integers(0, 2**31))
def test_rounding_of_the_protons_chooses_no_other_state(size, seed):
    """Unequal masses, not rounding, tell partners by symmetry apart: the pair is the same to the last few digits."""
    noise = np.random.default_rng(seed).normal(size=SITES.shape) * size
    one, other = (last_pair(shell_of(protons)) for protons in (SITES, SITES + noise))
    sign = 1 if np.sum(one * other) >= 0 else -1
    np.testing.assert_allclose(one, sign * other, atol=1e-5 * np.abs(one).max())
    assert PARTNERS > 0


def test_room_beside_other_pairs_is_the_norm_of_the_state_that_results():
    """Against the states themselves, by filling levels one by one: C^m on T, four levels, two other pairs."""
    amplitudes = np.array([0.9, 0.7, 0.4, 0.2])
    others, number = 2, 4
    vectors = np.zeros((number**2, 2**number, 2**number))  # occupied by up electrons, by down electrons
    for i, j in itertools.product(range(number), repeat=2):
        for chosen in itertools.combinations(range(number), others):
            if i in chosen or j in chosen:
                continue
            up = sum(1 << level for level in (*chosen, i))
            down = sum(1 << level for level in (*chosen, j))
            # An operator of up electrons passes the pairs below it, and so does that of the down ones: signs by level.
            sign = (-1) ** (sum(level < i for level in chosen) + sum(level < j for level in chosen))
            vectors[i * number + j, up, down] += sign * np.prod(amplitudes[list(chosen)])
    flat = vectors.reshape(number**2, -1)
    found = room_for_a_pair(amplitudes, np.arange(number), others)
    np.testing.assert_allclose(found, flat @ flat.T, atol=1e-14)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5))
def test_occupations_sum_to_the_filling(seed, filling):
    energies = np.sort(np.random.default_rng(seed).normal(size=8))
    assert np.sum(occupations(energies, filling, 30.0)) == pytest.approx(filling, abs=1e-12)
    potential = chemical_potential(energies, filling, 0.01)
    assert energies[filling - 1] - 0.5 < potential < energies[filling] + 0.5


ONSITE = jnp.tile(jnp.asarray([0.3, -0.1]), 4)
"""A learned correction (Ha) of the two s shells, alike on all four protons: the compact one is raised."""


def test_the_last_pair_follows_the_learned_hamiltonian():
    """It stays out of the closed shells whatever is learned: both are made of the same orbitals."""
    basis = make_orbital_basis(make_configuration(RING, SITES), CONFIG)
    for onsite in (0 * ONSITE, ONSITE):
        cold, size = jnp.asarray(1e3), jnp.asarray([0.5, 1.0])
        pairing = pairing_matrix(basis, onsite, cold, jnp.zeros(()), size, pairs=2)
        _, vectors = np.linalg.eigh(basis.hamiltonian + np.diag(onsite))
        turned = basis.root @ vectors
        below, last = (turned.T @ np.asarray(part) @ turned for part in (pairing.below, pairing.last))
        np.testing.assert_allclose(below, np.diag(np.eye(8)[0]), atol=1e-8)
        np.testing.assert_allclose(last[0], 0, atol=1e-6)
        assert np.linalg.norm(last) == pytest.approx(0.5, abs=0.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_an_odd_number_of_pairs_is_of_the_last_kind(seed):
    """psi = w_0 det A + w_1 [det(C + T) - det(C - T)]; for two pairs the bracket is twice the term with one in each."""
    generators = (np.random.default_rng([seed, i]) for i in range(6))
    up, down, closed, below, last, weights = (
        generator.normal(size=size)
        for generator, size in zip(generators, [(2, 6), (2, 6), (6, 6), (6, 6), (6, 6), (2,)], strict=True)
    )

    def psi(last, weights):
        phase, log = log_pairs(lambda matrix: jnp.asarray(up @ matrix @ down.T), Pairing(closed, below, last, weights))
        return float(phase * jnp.exp(log))

    a, b = up @ below @ down.T, up @ last @ down.T
    one_each = a[0, 0] * b[1, 1] + b[0, 0] * a[1, 1] - a[0, 1] * b[1, 0] - b[0, 1] * a[1, 0]
    whole = np.linalg.det(up @ closed @ down.T)
    size = abs(whole) + np.abs(np.linalg.det(a)) + np.abs(np.linalg.det(b)) + np.abs(one_each)
    weights = jnp.asarray(weights)
    assert psi(last, weights) == pytest.approx(weights[0] * whole + 2 * weights[1] * one_each, abs=1e-10 * size)
    assert psi(last, weights.at[1].set(0)) == pytest.approx(weights[0] * whole, abs=1e-10 * size)


def test_size_and_weight_of_the_last_pair_are_bounded():
    numbers = jnp.asarray([[0.0, 0.0], [-20.0, 1e3], [5.0, -1e3]])
    found = np.asarray(last_pair_of(numbers))
    np.testing.assert_allclose(found[0], [START_LAST_PAIR, 1], rtol=1e-3)
    assert found[1, 0] == pytest.approx(LEAST_LAST_PAIR, rel=1e-3)
    np.testing.assert_allclose(found[1:, 1], [RATIO_RANGE, 1 / RATIO_RANGE], rtol=1e-5)
