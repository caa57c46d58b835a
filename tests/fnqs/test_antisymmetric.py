"""What the Slater determinants fill: the lowest levels of the Hamiltonian, the lowest plane waves."""

import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.ansatz.geminal import pairing_matrix, slater_pairs
from fnqs.ansatz.orbital_basis import make_orbital_basis
from fnqs.ansatz.pair_numbers import COLD
from fnqs.ansatz.plane_waves import make_plane_waves
from fnqs.configuration import make_configuration
from fnqs.errors import InputError
from fnqs.model_config import ModelConfig
from fnqs.system import make_system
from fnqs_data.generate.crystals import lattice

SLATER = ModelConfig(s_exponents=(1.0, 0.3), p_exponents=(), antisymmetric="slater")
CUBE = 2.6 * 2 * np.eye(3)
SITES = 2.6 * np.stack(np.meshgrid(*[[0.0, 1.0]] * 3, indexing="ij"), -1).reshape(-1, 3)
OCTAHEDRON = make_configuration(10 * np.eye(3), 1.5 * np.concatenate([np.eye(3), -np.eye(3)]))


def bcc():
    cell, sites = lattice("bcc", 16, (2, 2, 2))[0]
    return make_configuration(2.11 * cell, 2.11 * sites)


def ring(twist=(0.0, 0.0, 0.0)):
    return make_configuration(7.2 * np.eye(3), 1.8 * np.arange(4)[:, None] * np.array([1.0, 0, 0]), twist)


@pytest.mark.parametrize(
    ("configuration", "closed", "top"),
    [(bcc(), 7, 13), (OCTAHEDRON, 1, 4), (make_configuration(CUBE, SITES), 4, 4)],
    ids=["1 pair in 6 levels", "2 pairs in 3 levels", "closed"],
)
def test_a_slater_determinant_fills_as_many_levels_as_there_are_pairs(configuration, closed, top):
    basis = make_orbital_basis(configuration, SLATER)
    np.testing.assert_array_equal(basis.shell.fillings[:2], [closed, top])
    pairs = len(configuration.protons) // 2
    pairing = slater_pairs(basis, jnp.zeros(len(basis.root)), jnp.asarray(COLD)).closed
    # In the orthonormal basis it is the projector on N/2 levels.
    projector = basis.root.T @ np.asarray(pairing) @ basis.root
    np.testing.assert_allclose(projector @ projector, projector, atol=1e-9)  # rounding times the overlap's condition
    assert np.trace(projector) == pytest.approx(pairs, abs=1e-9)
    total, lowest = np.sum(projector * basis.hamiltonian), np.linalg.eigvalsh(basis.hamiltonian)[:pairs].sum()
    # In a last shell that is not full unequal masses choose among levels that hardly differ.
    assert total == pytest.approx(lowest, abs=1e-9 if top == pairs else 1e-3)


def test_the_plane_waves_of_eight_atoms_are_constant_and_three_cosines():
    """In a simple cubic cell the shell of (100) has six waves for three pairs: those that are large at the protons."""
    shift = np.array([0.3, -0.2, 0.7])
    waves = make_plane_waves(make_configuration(CUBE, SITES + shift), CUBE)
    length = 2 * np.pi / CUBE[0, 0]
    np.testing.assert_allclose(np.linalg.norm(waves.vectors, axis=1), [0, length, length, length], atol=1e-12)
    at_protons = np.cos((SITES + shift) @ waves.vectors.T - waves.phases)
    np.testing.assert_allclose(np.abs(at_protons), 1, atol=1e-12)  # rounding


def test_the_filled_waves_are_the_shortest():
    """Eight pairs in a cube: the constant, the six waves (100), and one of the twelve (110)."""
    configuration = bcc()
    waves = make_plane_waves(configuration, configuration.cell)
    lengths = np.linalg.norm(waves.vectors @ configuration.cell.T, axis=1) / (2 * np.pi)
    np.testing.assert_allclose(lengths, np.sqrt([0, 1, 1, 1, 1, 1, 1, 2]), atol=1e-9)  # rounding
    # As cosine and sine of one wave, or only one of the two.
    assert len(np.unique(np.round(np.column_stack([waves.vectors, np.mod(waves.phases, np.pi)]), 6), axis=0)) == 8


def test_plane_waves_take_no_twist():
    config = ModelConfig(antisymmetric="plane_waves")
    with pytest.raises(InputError, match=r"twist \(0.25, 0.0, 0.0\): a model with .* takes no twist but"):
        make_system(ring((0.25, 0, 0)), config)


def test_a_slater_determinant_at_a_twist_is_that_of_the_pairing():
    one, other = (make_orbital_basis(ring((0.25, 0, 0)), c) for c in (SLATER, ModelConfig((1.0, 0.3), ())))
    np.testing.assert_array_equal(one.hamiltonian, other.hamiltonian)
    zeros, none = jnp.zeros(len(one.root)), jnp.ones(2)
    cold, warm = (pairing_matrix(one, zeros, jnp.asarray(beta), jnp.zeros(()), none, 2).closed for beta in (1e4, 8.0))
    np.testing.assert_allclose(cold, warm, atol=1e-9)  # rounding; states are only normalised by the temperature
