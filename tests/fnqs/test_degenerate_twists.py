"""Crystals at twists with equal levels at the Fermi energy: which are filled is decided by physics, not by rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.ansatz.open_shell import TWIST_PARTNERS, tie_between_levels
from fnqs.configuration import make_configuration
from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_data.generate.crystals import lattice

NUDGE = 1e-9
"""Displacement (bohr), far above rounding and far below what matters."""


@pytest.fixture(scope="module")
def logs(small_model):
    """A function (protons, cell, twist) that gives log|psi| (16,) of one untrained model, in float64."""
    wavefunction = WaveFunction(small_model)
    generator = np.random.default_rng(3)
    places = generator.uniform(size=(16, 8, 3))
    params = None

    @jax.jit
    def evaluate(params, system, walkers):
        context = wavefunction.encode(params, system)
        return jax.vmap(lambda electrons: wavefunction.log_psi(params, context, electrons)[1])(walkers)

    def compute(protons, cell, twist):
        nonlocal params
        system = make_system(make_configuration(cell, protons, twist), small_model)
        if params is None:
            params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), wavefunction.init(jax.random.key(0), system))
        return np.asarray(evaluate(params, system, jnp.asarray(places @ cell)))

    return compute


@pytest.mark.parametrize("phase", ["fcc", "cs-iv"])
@pytest.mark.parametrize("twist", [(1 / 3, 0.0, 0.0), (0.25, 0.25, 0.25), (0.375, 0.125, 0.125), (0.5, 0.0, 0.0)])
def test_neither_rounding_nor_the_order_of_protons_chooses(logs, phase, twist):
    cell, protons = (np.asarray(part) * 1.6 * (4 * np.pi / 3) ** (1 / 3) for part in lattice(phase, 8)[0])
    generator = np.random.default_rng(8)
    here = logs(protons, cell, twist)
    # Of a walker next to a node log|psi| changes more; without the field half of them changed by 0.3 and more.
    moved = np.median(np.abs(logs(protons + NUDGE * generator.normal(size=protons.shape), cell, twist) - here))
    assert moved < 3e-6
    reordered = np.median(np.abs(logs(protons[generator.permutation(8)], cell, twist) - here))
    assert reordered < 1e-8


def test_levels_without_a_partner_do_not_feel_the_field():
    generator = np.random.default_rng(0)
    field = generator.normal(size=(6, 6)) + 1j * generator.normal(size=(6, 6))
    field = field + field.conj().T
    energies = np.array([0.0, 0.2, 0.4, 0.4, 0.7, 0.7 + 10 * TWIST_PARTNERS])
    felt = tie_between_levels(energies, field)
    partners = np.zeros((6, 6), bool)
    partners[2:4, 2:4] = True
    np.testing.assert_allclose(felt[~partners], 0, atol=1e-14)
    within = felt[2:4, 2:4]
    np.testing.assert_allclose(np.trace(within), 0, atol=1e-14)
    assert within[0, 1] == pytest.approx(field[2, 3], rel=1e-12)
    turn = np.linalg.qr(generator.normal(size=(2, 2)))[0]
    turned = np.eye(6)
    turned[2:4, 2:4] = turn
    np.testing.assert_allclose(
        tie_between_levels(energies, turned.T @ field @ turned), turned.T @ felt @ turned, atol=1e-14
    )
