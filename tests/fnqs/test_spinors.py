"""Local moments as one determinant of all electrons: total spin 0, a Slater determinant without a field, smoothness."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.ansatz.orbital_basis import make_orbital_basis
from fnqs.ansatz.spinors import Spinors, log_spinors, spinor_levels
from fnqs.configuration import make_configuration
from fnqs.model_config import ModelConfig
from fnqs_data.generate.crystals import lattice

CONFIG = ModelConfig(s_exponents=(1.0, 0.3), p_exponents=(), antisymmetric="moments")
GRID = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3, indexing="ij"), -1).reshape(-1, 3)
CELL = 3.2 * np.diag([2.0, 2.0, 2.0])
NUMBER, ORBITALS = 8, 16


@pytest.fixture(scope="module")
def basis():
    protons = 3.2 * GRID + 0.2 * np.random.default_rng(1).normal(size=(NUMBER, 3))
    return make_orbital_basis(make_configuration(CELL, protons), CONFIG)


def psi(spinors: Spinors, values: np.ndarray) -> complex:
    """psi of orbitals (N, B) at the electrons, spin up first, with factors 1."""
    factors = jnp.ones((2, NUMBER, 2))
    phase, log = log_spinors(jnp.asarray(values), factors, spinors, jnp.array([0, 1]))
    return complex(phase) * float(np.exp(log))


def levels(basis, field: float) -> Spinors:
    onsite = 0.05 * np.random.default_rng(2).normal(size=ORBITALS)
    return spinor_levels(basis, jnp.asarray(onsite), jnp.full(ORBITALS, field), jnp.asarray(1e3), NUMBER // 2)


def test_the_total_spin_is_zero(basis):
    """Of a singlet, psi is the sum of what exchanges of one electron with each of the other spin make of it (Fock)."""
    spinors = levels(basis, 0.3)
    values = np.random.default_rng(3).normal(size=(NUMBER, ORBITALS))
    here, half = psi(spinors, values), NUMBER // 2
    for electron in range(half):
        exchanged = 0.0
        for partner in range(half, NUMBER):
            order = np.arange(NUMBER)
            order[[electron, partner]] = partner, electron
            exchanged += psi(spinors, values[order])
        assert exchanged == pytest.approx(here, rel=1e-9)


def test_without_a_field_a_slater_determinant(basis):
    """Levels of both spinors are the same: psi is the product of the determinants of either spin."""
    spinors = levels(basis, 0.0)
    np.testing.assert_allclose(spinors.along, spinors.against, atol=1e-12)
    ratios = []
    for seed in range(3):
        values = np.random.default_rng(seed).normal(size=(NUMBER, ORBITALS))
        up, down = values[: NUMBER // 2] @ spinors.along[0], values[NUMBER // 2 :] @ spinors.along[0]
        ratios.append(psi(spinors, values) / (np.linalg.det(up) * np.linalg.det(down)))
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-8)


def test_the_sign_of_the_pattern_does_not_matter(basis):
    values = np.random.default_rng(4).normal(size=(NUMBER, ORBITALS))
    here, turned = psi(levels(basis, 0.3), values), psi(levels(basis, -0.3), values)
    assert turned == pytest.approx(here, rel=1e-9)


@pytest.mark.parametrize("field", [0.05, 0.3])
def test_the_sign_of_one_of_two_patterns_does_not_matter(field):
    """bcc of N = 16 with noise: two patterns of finite weight, whose signs are chosen by rounding."""
    cell, sites = lattice("bcc", 16, (2, 2, 2))[0]
    length = 2.0 * (4 * np.pi / 3) ** (1 / 3)
    protons = np.asarray(sites) * length + 0.05 * np.random.default_rng(1).normal(size=(16, 3))
    basis = make_orbital_basis(make_configuration(np.asarray(cell) * length, protons), CONFIG)
    assert basis.moment_weights.min() > 0.1
    turned = dataclasses.replace(basis, moments=basis.moments * np.array([[1.0], [-1.0]]))
    values, found = np.random.default_rng(6).normal(size=(16, 32)), []
    for one in (basis, turned):
        spinors = spinor_levels(one, jnp.zeros(32), jnp.full(32, field), jnp.asarray(1e3), 8)
        phase, log = log_spinors(jnp.asarray(values), jnp.ones((2, 16, 2)), spinors, jnp.array([0, 1]))
        found.append(float(phase) * np.exp(float(log)))
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_in_a_strong_field_electrons_sit_on_protons_of_their_own(basis):
    """Levels of H + m s are on the protons where s is negative, those of H - m s on the others."""
    spinors = levels(basis, 5.0)
    weights = [np.sum(np.abs(part) ** 2, axis=1) for part in spinors_in_orthogonal_orbitals(basis, spinors)]
    lower = basis.moments[0] < 0
    assert weights[0][lower].sum() > 0.99 * weights[0].sum()
    assert weights[1][~lower].sum() > 0.99 * weights[1].sum()


def spinors_in_orthogonal_orbitals(basis, spinors: Spinors) -> list[np.ndarray]:
    return [np.asarray(basis.root).T @ np.asarray(part[0]) for part in (spinors.along, spinors.against)]


def test_psi_moves_little_with_the_protons(basis):
    values = jax.random.normal(jax.random.key(0), (NUMBER, ORBITALS), jnp.float64)
    protons = 3.2 * GRID + 0.2 * np.random.default_rng(1).normal(size=(NUMBER, 3))
    moved = protons + 1e-9 * np.random.default_rng(5).normal(size=protons.shape)
    other = make_orbital_basis(make_configuration(CELL, moved), CONFIG)
    here, there = psi(levels(basis, 0.2), np.asarray(values)), psi(levels(other, 0.2), np.asarray(values))
    assert abs(there) == pytest.approx(abs(here), rel=1e-6)
