"""The local energy against a slow reference: the full Hessian of log psi and the Ewald energy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.ewald import ewald_energy
from fnqs.hamiltonian import local_energies, local_energy, map_walkers
from fnqs.system import stack_systems

GAMMA = (0.0, 0.0, 0.0)
GENERAL = (0.13, -0.21, 0.4)
ROUNDING = 1e-9
"""Relative, of the kinetic energy in float64: sums of some hundred terms of either sign."""


@pytest.fixture(scope="module")
def slow_kinetic(compiled):
    """-(1/2) laplacian(psi) / psi in Ha from gradient and Hessian of real and imaginary part of log psi."""

    @functools.cache
    def derivatives(log_psi):
        def both(*arguments):
            function = lambda electrons: log_psi(*arguments[:2], electrons)  # noqa: E731
            slope = jax.jacrev(function)
            return slope(arguments[2]), jax.jacfwd(slope)(arguments[2])

        return compiled(both)

    def kinetic(model, case, electrons) -> complex:
        first, second = derivatives(model.complex_log_psi)(model.params, case.context, electrons)
        first = np.asarray(first).reshape(2, -1)
        second = np.asarray(second).reshape(2, first.shape[1], first.shape[1])
        slope, laplacian = first[0] + 1j * first[1], np.trace(second[0] + 1j * second[1])
        return -0.5 * (laplacian + np.sum(slope**2))

    return kinetic


@pytest.mark.parametrize(
    ("name", "number", "twist"),
    [
        ("model", 2, GAMMA),
        ("model", 2, GENERAL),
        ("model", 2, (0.5, 0.0, 0.0)),
        ("model", 4, GENERAL),
        ("plane_waves", 4, GAMMA),
    ],
)
def test_equals_the_slow_reference(any_model, slow_kinetic, number, twist):
    case = any_model.case(number, twist)
    expected = slow_kinetic(any_model, case, case.electrons) + float(ewald_energy(case.system.ewald, case.electrons))
    found = any_model.local_energy(case)
    assert found == pytest.approx(expected, abs=ROUNDING * max(1, abs(expected)))
    # At a general twist the local energy is complex; the phase enters the kinetic energy.
    assert (abs(found.imag) > 1e-3) == (twist == GENERAL) or twist == (0.5, 0.0, 0.0)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([GAMMA, GENERAL]))
def test_equals_the_slow_reference_anywhere(model, slow_kinetic, seed, twist):
    case = model.case(2, twist)
    electrons = jax.random.uniform(jax.random.key(seed), (2, 3), jnp.float64) @ case.configuration.cell
    expected = slow_kinetic(model, case, electrons) + float(ewald_energy(case.system.ewald, electrons))
    # Close pairs make large terms that cancel.
    assert model.local_energy(case, electrons) == pytest.approx(expected, abs=1e3 * ROUNDING * max(1, abs(expected)))


def test_equals_the_difference_quotient_of_psi(model):
    """psi itself on a cross of points around the electrons: independent of any automatic derivative."""
    case = model.case(2, GENERAL)
    step = 2e-3
    offsets = np.concatenate([np.zeros((1, 6)), *(sign * step * np.eye(6) for sign in (-2, -1, 1, 2))])
    walkers = case.electrons + offsets.reshape(-1, 2, 3)
    phase, log = model.log_psi_of_walkers(case, walkers)
    psi = phase * np.exp(log - log[0])
    outer, inner = psi[1:7].sum() + psi[19:].sum(), psi[7:19].sum()
    laplacian = (-outer + 16 * inner - 30 * 6 * psi[0]) / (12 * step**2) / psi[0]
    found = model.local_energy(case) - float(ewald_energy(case.system.ewald, case.electrons))
    # The stencil's error is step^4 / 90 times a sixth derivative (up to 1e5): 2e-8; rounding is 1e-15 / step^2.
    assert found == pytest.approx(-0.5 * laplacian, abs=1e-5)


@pytest.mark.parametrize(("number", "twist"), [(2, GENERAL), (4, GAMMA)])
def test_float32_against_float64(model, number, twist):
    case = model.case(number, twist)
    # On-site energies such as training finds mix strongly overlapping orbitals: pairs are differences of large terms.
    onsite = model.params["encoder"]["onsite_head"]
    onsite = onsite | {"bias": 3.0 * jnp.cos(2.0 * jnp.arange(len(onsite["bias"]), dtype=jnp.float64))}
    params = model.params | {"encoder": model.params["encoder"] | {"onsite_head": onsite}}
    walkers = case.electrons + 0.3 * jax.random.normal(jax.random.key(1), (8, number, 3), jnp.float64)

    def evaluate(dtype):
        own = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        context = model.encode(own, case.system)
        one = jax.jit(lambda r: local_energy(model.wavefunction, own, context, case.system, r))
        return [one(r.astype(dtype)) for r in walkers]

    single, exact = evaluate(jnp.float32), evaluate(jnp.float64)
    assert single[0].dtype == (jnp.complex64 if any(twist) else jnp.float32)
    # 6e-8 times terms of some 100 Ha, a few times over; the noise of the local energy itself is of order 1 Ha. Close to
    # a node, where the local energy is far outside that noise, the rounded distance from the node counts: 1e-4 of it.
    np.testing.assert_allclose([complex(x) for x in single], [complex(x) for x in exact], atol=3e-4, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 4])
def test_chunks_change_nothing(model, compiled, chunk):
    cases = [model.case(2, GENERAL, seed=seed) for seed in (0, 1)]
    walkers = jnp.stack(
        [
            case.electrons + 0.3 * jax.random.normal(jax.random.key(i), (6, 2, 3), jnp.float64)
            for i, case in enumerate(cases)
        ]
    )
    contexts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(case.context for case in cases))
    systems = stack_systems([case.system for case in cases])
    energies = compiled(lambda *arguments: local_energies(model.wavefunction, model.params, *arguments, chunk))(
        contexts, systems, walkers
    )
    assert energies.shape == (2, 6)
    for i, case in enumerate(cases):
        for j in (0, 5):
            expected = model.local_energy(case, walkers[i, j])
            assert complex(energies[i, j]) == pytest.approx(expected, abs=ROUNDING * max(1, abs(expected)))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(1, 20))
def test_chunks_keep_order_and_size(configurations, number, chunk):
    """Every walker meets its own configuration, and never more than `chunk` at a time."""
    walkers = jnp.arange(configurations * number, dtype=jnp.float64).reshape(configurations, number, 1, 1)
    owners = (jnp.arange(configurations),)

    def function(owner, part):
        assert part.shape[0] <= chunk
        return {"owner": jnp.full(len(part), owner), "walker": part[:, 0, 0]}

    result = map_walkers(function, owners, walkers, chunk)
    np.testing.assert_array_equal(result["walker"], walkers[:, :, 0, 0])
    np.testing.assert_array_equal(result["owner"], np.repeat(np.arange(configurations)[:, None], number, 1))
