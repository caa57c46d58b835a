"""Amplitudes that act on the levels of the Hamiltonian: a partition of unity, blind to degeneracy and to the gauge."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.ansatz.level_gates import LevelGates, bumps, gated_levels
from fnqs.laplacian.jet import Jet
from fnqs.laplacian.particle_jet import own_frame
from fnqs.system import make_system

MEMBERS = np.array([0, 1, 2, 2, 2])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=8), st.integers(2, 7))
def test_the_bumps_sum_to_one(levels, number):
    found = bumps(jnp.asarray(levels), number)
    np.testing.assert_allclose(jnp.sum(found, axis=0), 1, atol=1e-12)
    assert jnp.all(found >= 0)


def gates_of(rng, protons=2, amplitudes=3, complex_levels=False):
    size = protons * len(MEMBERS)
    matrices = rng.normal(size=(2, size, size))
    if complex_levels:
        matrices = matrices + 1j * rng.normal(size=(2, size, size))
    return LevelGates(*jnp.asarray(matrices), jnp.asarray(rng.normal(size=(3, amplitudes, size))))


@pytest.mark.parametrize("complex_levels", [False, True])
def test_values_are_those_of_the_matrices_written_out(complex_levels):
    rng = np.random.default_rng(0)
    levels = gates_of(rng, complex_levels=complex_levels)
    values, gates, mixing = (rng.normal(size=size) for size in ((4, 10), (4, 3), (3, 10)))
    found = gated_levels(jnp.asarray(values), None, jnp.asarray(gates), jnp.asarray(mixing), levels, MEMBERS)
    shells = np.tile(MEMBERS, 2)
    outward, homeward, profiles = (np.asarray(part) for part in (levels.outward, levels.homeward, levels.profiles))
    expected = (values * (1 + gates @ mixing)).astype(outward.dtype)
    for i, b, a in np.ndindex(4, 10, 3):
        expected[i, b] += gates[i, a] * ((values[i] @ outward * profiles[shells[b], a]) @ homeward[:, b])
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_derivatives_are_those_of_the_values():
    """Slopes in every electron's coordinates and the Laplacian, against automatic derivatives of the same function."""
    rng = np.random.default_rng(1)
    levels, mixing = gates_of(rng), jnp.asarray(rng.normal(size=(3, 10)))
    turn, of_gates = jnp.asarray(rng.normal(size=(6, 6))), jnp.asarray(rng.normal(size=(6, 6)))
    waves = jnp.asarray(rng.normal(size=(3, 10)))

    def parts(electrons):
        flat = electrons.ravel()
        positions = electrons + 0.1 * jnp.sin(turn @ flat).reshape(2, 3)
        return positions, jnp.cos(of_gates @ flat).reshape(2, 3)

    def whole(electrons):
        positions, gates = parts(electrons)
        return gated_levels(jnp.sin(positions @ waves), None, gates, mixing, levels, MEMBERS)

    def jet(function, electrons):
        jacobian = jnp.moveaxis(jax.jacobian(function)(electrons).reshape(*function(electrons).shape, 6), -1, 0)
        second = jax.hessian(function)(electrons).reshape(*function(electrons).shape, 6, 6)
        return Jet(function(electrons), jacobian, jnp.trace(second, axis1=-2, axis2=-1))

    electrons = jnp.asarray(rng.normal(size=(2, 3)))
    local, frame = own_frame(jet(lambda r: parts(r)[0], electrons))
    sine, cosine = jnp.sin(local.value @ waves), jnp.cos(local.value @ waves)
    slopes = jnp.einsum("wix,xb->wib", local.jacobian, waves)
    values = Jet(sine, cosine * slopes, cosine * (local.laplacian @ waves) - sine * jnp.sum(slopes**2, axis=0))
    found = gated_levels(values, frame, jet(lambda r: parts(r)[1], electrons), mixing, levels, MEMBERS)
    expected = jet(whole, electrons)
    np.testing.assert_allclose(found.value, expected.value, atol=1e-12)
    slopes = jnp.einsum("yib,yit->tib", found.slopes, found.directions)
    np.testing.assert_allclose(slopes, expected.jacobian, atol=1e-10)
    np.testing.assert_allclose(found.laplacian, expected.laplacian, atol=1e-9)


def test_the_combination_of_degenerate_levels_does_not_matter(model):
    """Levels within a shell turned into each other leave psi as it is, as do the phases of all levels."""
    case = model.case(4)
    basis = case.system.basis
    levels = basis.levels.copy()
    levels[3] = levels[2]
    angle = 0.7
    turned = basis.vectors.copy()
    turned[:, 2:4] = basis.vectors[:, 2:4] @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned *= np.where(np.arange(len(levels)) % 2, 1, -1)
    logs = []
    for vectors in (basis.vectors, turned):
        own = dataclasses.replace(basis, levels=levels, vectors=vectors)
        context = model.encode(model.params, dataclasses.replace(case.system, basis=own))
        logs.append(model.log_psi_of(model.params, context, case.electrons)[1])
    assert logs[0] == pytest.approx(float(logs[1]), abs=1e-9)


def test_a_model_without_them_has_none(model):
    config = dataclasses.replace(model.config, level_bumps=0)
    wavefunction = dataclasses.replace(model.wavefunction, config=config)
    system = make_system(model.case(4).configuration, config)
    params = wavefunction.init(jax.random.key(0), system)
    assert jax.jit(wavefunction.encode)(params, system).level_gates is None
    assert "level_head" not in params["encoder"]
