"""Twists that a crystal makes equal: exactly so for the wave function, and with weights that keep every average."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.configuration import fold_twist, make_configuration
from fnqs.periodic.cell import reciprocal_vectors
from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_data.generate.crystals import primitive_cell
from fnqs_eval.energies.symmetry import crystal_operations, reduce_by_symmetry
from fnqs_eval.energies.twists import monkhorst_pack, parse_twists

BCC = make_configuration(2.7 * np.eye(3), 2.7 * np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))
SHIFTED = make_configuration(BCC.cell, BCC.protons + np.array([0.3, -0.2, 0.5]))
TETRAGONAL = make_configuration(np.diag([2.7, 2.7, 3.3]), [[0.0, 0, 0], [0, 0, 1.4]])
SCREW = make_configuration(
    np.diag([3.0, 3.3, 3.6]),
    [3.0, 3.3, 3.6] * np.array([[0.1, 0.2, 0.1], [0.4, -0.2, 0.6], [-0.1, 0.7, 0.4], [0.6, 0.3, -0.1]]),
)
"""The general place of P 21 21 21: every operation but the identity moves the protons by half lattice vectors."""
TWIST = np.array([0.13, -0.21, 0.4])
DISTORTED = make_configuration(BCC.cell, BCC.protons + np.array([[0.1, 0.03, -0.07], [0, 0, 0]]))


HCP = primitive_cell("hcp")
HEXAGONAL = make_configuration(2.5 * HCP.cell.array, 2.5 * HCP.positions)


def free_energy(configuration, twists):
    """Sum of the two lowest free bands in Ha at every twist, with the shape of the crystal's cell."""
    waves = np.stack(np.meshgrid(*[range(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    vectors = reciprocal_vectors(configuration.cell)
    levels = [0.5 * np.sum(((waves + twist) @ vectors) ** 2, axis=1) for twist in twists]
    return np.array([np.sort(level)[:2].sum() for level in levels])


@pytest.mark.parametrize(
    ("configuration", "operations", "twists"),
    [(BCC, 48, 4), (SHIFTED, 48, 4), (TETRAGONAL, 16, 6), (HEXAGONAL, 24, 12), (SCREW, 4, 8), (DISTORTED, 2, 32)],
    ids=["bcc", "shifted", "tetragonal", "hexagonal", "screw axes", "distorted"],
)
def test_reduction_keeps_weights_and_averages(configuration, operations, twists):
    assert len(crystal_operations(configuration)) == operations
    reduced = reduce_by_symmetry(parse_twists("4x4x4"), configuration)
    assert len(reduced.twists) == twists
    assert reduced.weights.sum() == pytest.approx(1, abs=1e-12)
    assert np.all((reduced.twists > -0.5) & (reduced.twists <= 0.5))
    full = free_energy(configuration, monkhorst_pack([4, 4, 4])).mean()
    assert reduced.weights @ free_energy(configuration, reduced.twists) == pytest.approx(full, abs=1e-10)


def test_what_is_left_alone():
    """Grids that the operation does not map onto themselves, and sets that are no grids."""
    uneven = reduce_by_symmetry(parse_twists("4x2x1"), BCC)
    assert len(uneven.twists) == 2  # only signs, no exchange of axes
    assert uneven.weights @ free_energy(BCC, uneven.twists) == pytest.approx(
        free_energy(BCC, monkhorst_pack([4, 2, 1])).mean(), abs=1e-10
    )
    for text in ("random:8", "0.25,0,0;0,0.25,0"):
        chosen = parse_twists(text)
        assert reduce_by_symmetry(chosen, BCC) is chosen


@pytest.fixture(scope="module")
def log_psi(small_model):
    """A function (configuration, electrons) giving log|psi| in float64, of a wave function with noisy parameters."""
    wavefunction = WaveFunction(small_model)
    drawn = jax.jit(wavefunction.init)(jax.random.key(0), make_system(BCC, small_model))
    leaves, structure = jax.tree.flatten(drawn)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.05 * jax.random.normal(key, leaf.shape, jnp.float64) for leaf, key in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(
        structure, [leaf.astype(jnp.float64) + x for leaf, x in zip(leaves, noise, strict=True)]
    )

    @jax.jit
    def evaluate(system, walkers):
        context = wavefunction.encode(params, system)
        return jax.vmap(lambda electrons: wavefunction.log_psi(params, context, electrons)[1])(walkers)

    return lambda configuration, walkers: np.asarray(evaluate(make_system(configuration, small_model), walkers))


def distance_modulo_lattice(one, other, cell):
    """Largest fractional distance of a proton (N, 3) from the nearest equivalent of the others."""
    difference = (one[:, None] - other[None]) @ np.linalg.inv(cell)
    return np.abs(difference - np.round(difference)).max(axis=-1).min(axis=1).max()


def change(log_psi, configuration, rotation, twist):
    """Largest change of log|psi|, but for a constant, when electrons and twist are turned by an operation."""
    cell, protons = np.asarray(configuration.cell), np.asarray(configuration.protons)
    matrix = cell.T @ rotation @ np.linalg.inv(cell.T)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)  # rounding
    turned = protons @ matrix.T
    offset = min(protons - turned[0], key=lambda w: distance_modulo_lattice(turned + w, protons, cell))
    assert distance_modulo_lattice(turned + offset, protons, cell) < 1e-6
    walkers = np.random.default_rng(0).uniform(size=(6, *protons.shape)) @ cell
    here = log_psi(dataclasses.replace(configuration, twist=np.array(twist)), walkers)
    turned_twist = fold_twist(np.linalg.inv(rotation).T @ twist)
    there = log_psi(dataclasses.replace(configuration, twist=turned_twist), walkers @ matrix.T + offset)
    return np.ptp(there - here)


@pytest.mark.parametrize(
    ("configuration", "tolerance"),
    # Orbital integrals are done on a grid. Protons on it stay on it: rounding. For others the grid leaves some 5e-5, a
    # twenty-thousandth of the fluctuations of log|psi|, as when everything is moved by any vector.
    [(BCC, 1e-9), (SHIFTED, 1e-3), (TETRAGONAL, 1e-3), (HEXAGONAL, 1e-3), (SCREW, 1e-3)],
    ids=["bcc", "shifted", "tetragonal", "hexagonal", "screw axes"],
)
def test_the_wave_function_has_the_operations_that_are_used(log_psi, configuration, tolerance):
    operations = crystal_operations(configuration)
    assert len(operations) > 1
    for rotation in operations[:: max(1, len(operations) // 6)]:
        assert change(log_psi, configuration, rotation, TWIST) < tolerance


def test_at_the_border_of_the_zone_twists_are_equal_only_with_their_waves(log_psi):
    """(1/2, 0, 0) has two shortest wave vectors; an operation may turn the one taken into the other."""
    grid = reduce_by_symmetry(parse_twists("2x2x2"), BCC)
    assert len(grid.twists) == 1  # (1/4, 1/4, 1/4), inside
    mirror = np.diag([-1, 1, 1])
    assert change(log_psi, BCC, mirror, np.array([0.2, 0.1, 0.3])) < 1e-9
    assert change(log_psi, BCC, mirror, np.array([0.5, 0.1, 0.3])) > 1e-3
