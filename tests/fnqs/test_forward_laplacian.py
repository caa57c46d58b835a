"""Jets against second derivatives by jax, and against folx on the plain-array wave function."""

import logging
import warnings

import folx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.ansatz.pair_features import (
    distances,
    off_diagonal,
    pair_displacements,
    sum_messages,
    sum_over_electrons,
    sum_over_protons,
)
from fnqs.laplacian.jet import (
    Jet,
    add,
    concatenate,
    displacement_jet,
    elementwise,
    independent,
    linear,
    log_determinant,
    product,
    scale,
    shift,
)
from fnqs.periodic.smooth_distance import smooth_lattice, smooth_pair

ROUNDING = 1e-10
"""Relative: float64 rounding of a few thousand operations, magnified by inverses of small matrices."""

POINTS = np.random.default_rng(0).normal(size=(4, 3))
MIXING = np.random.default_rng(1).normal(size=(3, 5))
FILTER = np.random.default_rng(2).normal(size=(4, 4, 5))
LATTICE = smooth_lattice(4 * np.eye(3) + np.random.default_rng(3).uniform(-0.5, 0.5, (3, 3)))


def mix(x):
    return linear(lambda y: y @ jnp.asarray(MIXING), x)


def pairs(x):
    """Squared distances, distances and vectors of every pair; the derivatives are those of the displacement."""
    displacement = pair_displacements(
        x.value if isinstance(x, Jet) else x, x.value if isinstance(x, Jet) else x, isinstance(x, Jet)
    )
    square, vectors = smooth_pair(LATTICE, displacement)
    return square, distances(square, same=True), vectors


def between_electrons(x):
    _, distance, vectors = pairs(x)
    weights = elementwise(lambda s: jnp.exp(-s), distance)
    return sum_over_electrons(off_diagonal(product("ij,ijx->ijx", weights, vectors)))


def with_protons(x):
    electrons = x.value if isinstance(x, Jet) else x
    displacement = pair_displacements(electrons, jnp.asarray(POINTS[:3] + 0.4), isinstance(x, Jet))
    square, _ = smooth_pair(LATTICE, displacement)
    return sum_over_protons(elementwise(lambda s: jnp.exp(-s), distances(square, same=False)))


def messages(x):
    _, distance, _ = pairs(x)
    decay = elementwise(lambda s: s * jnp.exp(-s), distance)
    filters = off_diagonal(linear(lambda s: s[..., None] * jnp.asarray(FILTER), decay))
    return sum_messages(filters, elementwise(jnp.tanh, mix(x)))


OPERATIONS = {
    "linear": mix,
    "shift": lambda x: shift(x, jnp.arange(3.0)),
    "scale": lambda x: scale(x, jnp.arange(3.0)),
    "add": lambda x: add(x, elementwise(jnp.sin, x), x),
    "concatenate": lambda x: concatenate([x, elementwise(jnp.sin, x)]),
    "elementwise": lambda x: elementwise(lambda y: jnp.exp(-y) * jnp.cos(y), x),
    "product of jets": lambda x: product("ix,jx->ij", elementwise(jnp.sin, x), elementwise(jnp.cos, x)),
    "product with an array": lambda x: product("ix,xc->ic", elementwise(jnp.sin, x), jnp.asarray(MIXING)),
    "product with an array first": lambda x: product("xc,ix->ic", jnp.asarray(MIXING), elementwise(jnp.sin, x)),
    "between electrons": between_electrons,
    "with protons": with_protons,
    "messages": messages,
    "log determinant": lambda x: log_determinant(elementwise(jnp.tanh, linear(lambda y: y[:3] + y[3], x)))[1],
}


def expected_jet(function, points):
    """Jacobian and Laplacian by jax.hessian."""
    size = points.size
    value = function(points)
    jacobian = jnp.moveaxis(jax.jacfwd(function)(points).reshape(*value.shape, size), -1, 0)
    hessian = jax.hessian(function)(points).reshape(*value.shape, size, size)
    return Jet(value, jacobian, jnp.trace(hessian, axis1=-2, axis2=-1))


def assert_same(found: Jet, expected: Jet):
    for part in ("value", "jacobian", "laplacian"):
        wanted = np.asarray(getattr(expected, part))
        size = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(getattr(found, part), wanted, atol=ROUNDING * size, err_msg=part)


@pytest.mark.parametrize("name", OPERATIONS)
def test_equals_the_hessian(name, compiled):
    operation, points = OPERATIONS[name], jnp.asarray(POINTS)
    found = operation(independent(points))
    expected = compiled(lambda x: expected_jet(operation, x))(points)
    assert np.abs(expected.laplacian).max() > 1e-3 or name in ("linear", "shift", "scale")
    assert_same(found, expected)


def test_displacements_are_coordinates_of_their_own():
    jet = displacement_jet(jnp.asarray(POINTS))
    square = product("ix,ix->i", jet, jet)
    np.testing.assert_allclose(square.jacobian, 2 * POINTS.T, rtol=1e-14)  # rounding of one product
    np.testing.assert_allclose(square.laplacian, 6.0, rtol=1e-14)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 3.0))
def test_chain_of_operations_at_any_points(seed, spread):
    points = spread * jax.random.normal(jax.random.key(seed), (4, 3), jnp.float64)
    assert_same(_chain_jet(points), _chain_expected(points))


def _chain(x):
    hidden = elementwise(jnp.tanh, mix(x))
    return product("ic,jc->ij", hidden, elementwise(lambda y: jnp.exp(-y * y), hidden))


_chain_jet = jax.jit(lambda x: _chain(independent(x)))
_chain_expected = jax.jit(lambda x: expected_jet(_chain, x))


def test_log_determinant_of_a_complex_matrix():
    points = jnp.asarray(POINTS)
    turn = jnp.asarray(np.random.default_rng(4).normal(size=(3, 3, 2)) @ [1, 1j])

    def sines(x):
        return elementwise(jnp.sin, linear(lambda y: y[:3], x))

    def parts(x):
        phase, log = log_determinant(sines(x).astype(turn.dtype) @ turn)
        return jnp.stack([log, jnp.angle(phase)])

    values = sines(independent(points))
    complex_values = jax.tree.map(lambda part: part.astype(turn.dtype), values)
    phase, found = log_determinant(product("ix,xc->ic", complex_values, turn))
    expected = expected_jet(parts, points)
    as_complex = Jet(
        expected.value[0],
        *(jax.lax.complex(x[..., 0], x[..., 1]) for x in (expected.jacobian, expected.laplacian)),
    )
    assert_same(found, as_complex)
    assert abs(phase) == pytest.approx(1, abs=1e-14)  # rounding
    assert float(jnp.angle(phase)) == pytest.approx(float(expected.value[1]), abs=1e-12)


def test_shift_and_scale_refuse_or_keep_the_shape():
    jet = independent(jnp.asarray(POINTS))
    with pytest.raises(ValueError, match="enlarge"):
        shift(jet, jnp.ones((2, 4, 3)))


@pytest.mark.parametrize("twist", [(0.0, 0.0, 0.0), (0.13, -0.21, 0.4)])
def test_log_psi_against_folx(model, twist, caplog, compiled, monkeypatch):
    """Folx differentiates the code for plain arrays, so the two share nothing but the formula of psi.

    It knows the determinant of jax by name, and takes other complex functions to be holomorphic.
    """
    monkeypatch.setattr("fnqs.laplacian.jet.phase_and_log_determinant", jnp.linalg.slogdet)
    case = model.case(4, twist)

    def plain(electrons):
        parts = model.complex_log_psi(model.params, case.context, electrons)
        return parts if any(twist) else parts[:1]

    with caplog.at_level(logging.WARNING), warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("error")
        expected = compiled(folx.forward_laplacian(plain))(case.electrons)
    # Folx only logs that it fell back to the full Hessian; then it would not be an independent check.
    assert not [record.message for record in caplog.records]
    monkeypatch.undo()
    _, found = compiled(model.wavefunction.log_psi_jet)(model.params, case.context, case.electrons)
    jacobian = np.asarray(expected.jacobian.dense_array)
    for part, wanted in (("jacobian", jacobian), ("laplacian", np.asarray(expected.laplacian))):
        value = np.asarray(getattr(found, part))
        together = np.stack([np.real(value), np.imag(value)], -1)[..., : wanted.shape[-1]]
        np.testing.assert_allclose(together, wanted, atol=ROUNDING * np.abs(wanted).max(), err_msg=part)
