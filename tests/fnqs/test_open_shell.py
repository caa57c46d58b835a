"""The last pair of an open shell: found where it is, diagonal in its own Hamiltonian, the same on every machine."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.ansatz.geminal import Pairing, filled, log_pairs, pairing_matrix
from fnqs.ansatz.orbital_basis import make_orbital_basis
from fnqs.configuration import make_configuration
from fnqs.model_config import ModelConfig
from fnqs.wavefunction import START_OPEN_SHELL, last_pair

CONFIG = ModelConfig(s_exponents=(1.0, 0.3), p_exponents=())
RING = 1.8 * np.diag([4.0, 4.0, 4.0])
SITES = 1.8 * np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])


def shell_of(protons, cell=RING, twist=(0.0, 0.0, 0.0)):
    return make_orbital_basis(make_configuration(cell, protons, twist), CONFIG).shell


def test_four_atoms_in_a_ring_have_two_levels_for_the_last_pair():
    """k = 0 is full; one pair for k = +-1: 2 x 2 states, of which cc + ss, with equal signs, is the highest."""
    shell = shell_of(SITES)
    np.testing.assert_array_equal(shell.fillings[:2], [1, 3])
    assert np.abs(shell.levels[:, 2:]).max() == 0
    states = shell.states[:, :2, :2]
    highest = states[-1]
    np.testing.assert_allclose(highest, highest[0, 0] * np.eye(2), atol=1e-2)  # the tie field turns it a little
    triplet = states[0]
    np.testing.assert_allclose(triplet, -triplet.T, atol=1e-6)  # Hund's rule


def test_states_are_orthonormal():
    states = shell_of(SITES).states.reshape(4, -1)
    np.testing.assert_allclose(states @ states.T, np.eye(4), atol=1e-12)


def test_closed_shells_have_none():
    bonds = SITES + np.array([[0.0, 0, 0], [-0.4, 0, 0], [0, 0, 0], [-0.4, 0, 0]])
    for shell in (shell_of(bonds), shell_of(SITES, twist=(0.25, 0, 0))):
        np.testing.assert_array_equal(shell.fillings, [2, 2, 4])
        assert not shell.states.any()
        assert not shell.levels.any()


@settings(max_examples=5, deadline=None)
@given(st.floats(1e-12, 1e-9), st.integers(0, 2**31))
def test_rounding_of_the_protons_chooses_no_other_state(size, seed):
    """The tie field, not rounding, tells partners by symmetry apart: P is the same to the last few digits."""
    noise = np.random.default_rng(seed).normal(size=SITES.shape) * size
    one, other = (last_pairs(shell_of(protons)) for protons in (SITES, SITES + noise))
    np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(one).max())


def last_pairs(shell):
    return np.einsum("ag,kgh,bh->kab", shell.levels, shell.states, shell.levels)


def test_last_pair_stays_out_of_the_closed_shells():
    """With H_0 alone the last pair's levels are orthogonal to the closed ones, in the metric of the overlaps."""
    basis = make_orbital_basis(make_configuration(RING, SITES), CONFIG)
    overlap = basis.root @ basis.root.T
    none = jnp.zeros(4)
    cold = jnp.asarray(1e3)
    closed = pairing_matrix(basis, jnp.zeros(len(overlap)), cold, jnp.zeros(()), none, 2).closed
    assert np.trace(closed @ overlap) == pytest.approx(1.0, abs=1e-6)
    assert np.abs(np.asarray(closed) @ overlap @ basis.shell.levels).max() < 1e-6


ONSITE = jnp.tile(jnp.asarray([0.3, -0.1]), 4)
"""A learned correction (Ha) of the two s shells, alike on all four protons: the compact one is raised."""


def pairs_among_levels(onsite, size):
    """P among the levels of the learned Hamiltonian of the ring, with the last pair in the lowest state."""
    basis = make_orbital_basis(make_configuration(RING, SITES), CONFIG)
    pairing = pairing_matrix(
        basis, onsite, jnp.asarray(1e3), jnp.zeros(()), jnp.asarray([size, 0.0, 0.0, 0.0]), pairs=2
    )
    found = filled(pairing).closed
    _, vectors = np.linalg.eigh(basis.hamiltonian + np.diag(onsite))
    turned = basis.root @ vectors
    return turned.T @ np.asarray(found) @ turned


def test_the_last_pair_follows_the_learned_hamiltonian():
    """Closed shells and last pair are made of the same orbitals: what the network learns for one twist moves both."""
    pairs = pairs_among_levels(ONSITE, 1.0)
    expected = np.zeros((8, 8))
    expected[0, 0] = 1
    triplet = pairs[1, 2]
    expected[1, 2], expected[2, 1] = triplet, -triplet
    np.testing.assert_allclose(pairs, expected, atol=1e-8)  # levels of the ring differ by symmetry, rounded
    # 4 % of the shell lie outside the learned one; the projection is magnified by as much.
    assert abs(triplet) == pytest.approx(np.sqrt(0.5), abs=0.05)
    assert abs(pairs_among_levels(0 * ONSITE, 1.0)[1, 2]) == pytest.approx(np.sqrt(0.5), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_an_open_shell_takes_an_odd_number_of_pairs(seed):
    """det(C + T) - det(C - T) changes sign with T, and for two pairs it is the term with one pair in each."""
    up, down, closed, last = (
        np.random.default_rng([seed, i]).normal(size=size) for i, size in enumerate([(2, 6), (2, 6), (6, 6), (6, 6)])
    )

    def psi(last, open_shell=1.0):
        pairing = Pairing(closed, last, jnp.asarray(open_shell))
        phase, log = log_pairs(lambda matrix: jnp.asarray(up @ matrix @ down.T), pairing)
        return float(phase * jnp.exp(log))

    a, b = up @ closed @ down.T, up @ last @ down.T
    one_each = a[0, 0] * b[1, 1] + b[0, 0] * a[1, 1] - a[0, 1] * b[1, 0] - b[0, 1] * a[1, 0]
    size = np.abs(np.linalg.det(a)) + np.abs(np.linalg.det(b)) + np.abs(one_each)
    assert psi(last) == pytest.approx(2 * one_each, abs=1e-11 * size)
    assert psi(-last) == pytest.approx(-psi(last), abs=1e-11 * size)
    assert psi(0 * last, 0.0) == pytest.approx(np.linalg.det(a), abs=1e-11 * size)


def test_the_ring_has_the_symmetry_of_its_state(model):
    """The triplet of cos and sin changes sign when the ring is reflected, and so does psi, exactly."""
    electrons = SITES + np.random.default_rng(3).normal(size=SITES.shape) * 0.5
    case = model.prepare(make_configuration(RING, SITES), electrons)
    triplet = np.asarray(case.context.pairing.last)[0]
    only = dataclasses.replace(case.context.pairing, last=0.5 * (triplet - triplet.T)[None])
    context = dataclasses.replace(case.context, pairing=only)
    for factors in ([-1.0, 1, 1], [1, -1, 1]):
        sign, log = model.wavefunction.log_psi(model.params, context, jnp.asarray(electrons))
        other_sign, other = model.wavefunction.log_psi(model.params, context, jnp.asarray(electrons * factors))
        assert other == pytest.approx(float(log), abs=1e-6)
        assert other_sign == factors[0] * sign


def test_the_last_pair_may_be_small_or_another_state():
    numbers = jnp.asarray([[0.0, 0, 0, 0], [-20.0, 0, 0, 0], [0.0, 100, 0, 0]])
    small = np.exp(-20) * START_OPEN_SHELL / (1 - START_OPEN_SHELL)
    found = np.asarray(last_pair(numbers))
    np.testing.assert_allclose(found[:2, 0], [START_OPEN_SHELL, small], rtol=1e-5)  # float32
    np.testing.assert_allclose(found[2], [0, START_OPEN_SHELL, 0, 0], atol=1e-2)
