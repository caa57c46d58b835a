"""The Fermi function of a matrix against direct diagonalisation and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit

from fnqs.ansatz.fermi_function import fermi_matrix, paired_levels
from fnqs.factorisations import eigenvectors

SIZE = 6
FILLING = 2.0
ROUNDING = 1e-12
"""float64 rounding of a 6 by 6 diagonalisation."""

STEP = 1e-4
DIFFERENCE = 1e-6
"""Central differences of STEP: the third derivative, of order beta^3 / 10 < 30, times STEP^2 / 6, with a margin."""

fermi = jax.jit(fermi_matrix)


def hermitian(seed: int, *, is_complex: bool = False) -> np.ndarray:
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(SIZE, SIZE))
    if is_complex:
        matrix = matrix + 1j * generator.normal(size=(SIZE, SIZE))
    return (matrix + matrix.conj().T) / 2


def evaluate(matrix, beta=4.0, filling=FILLING):
    return np.asarray(fermi(jnp.asarray(matrix), jnp.asarray(float(beta)), jnp.asarray(float(filling))))


def direct(matrix, beta, filling):
    """The definition, with the chemical potential from a library's root finder."""
    energies, vectors = np.linalg.eigh(matrix)
    excess = lambda mu: expit(-beta * (energies - mu)).sum() - filling  # noqa: E731
    margin = 50 / beta
    mu = brentq(excess, energies[0] - margin, energies[-1] + margin, xtol=1e-15, rtol=1e-15)
    return (vectors * expit(-beta * (energies - mu))) @ vectors.conj().T


def change(matrix, direction, beta=4.0, d_beta=0.0):
    """Directional derivative by forward mode."""
    primals = (jnp.asarray(matrix), jnp.asarray(beta), jnp.asarray(FILLING))
    tangents = (jnp.asarray(direction), jnp.asarray(d_beta), jnp.asarray(0.0))
    return np.asarray(jax.jit(lambda p, t: jax.jvp(fermi_matrix, p, t)[1])(primals, tangents))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 100.0), st.floats(0.5, SIZE - 0.5), st.booleans())
def test_equals_the_definition(seed, beta, filling, is_complex):
    matrix = hermitian(seed, is_complex=is_complex)
    found = evaluate(matrix, beta, filling)
    # The slope in mu, up to beta / 4, magnifies the rounding of mu.
    np.testing.assert_allclose(found, direct(matrix, beta, filling), atol=ROUNDING * (1 + beta))
    np.testing.assert_allclose(found, found.conj().T, atol=ROUNDING)
    assert np.trace(found).real == pytest.approx(filling, abs=ROUNDING * (1 + beta))
    occupations = np.linalg.eigvalsh(found)
    assert occupations.min() > -ROUNDING
    assert occupations.max() < 1 + ROUNDING


def test_cold_limit_is_the_projector_on_the_lowest_levels():
    matrix = hermitian(0)
    lowest = np.linalg.eigh(matrix)[1][:, :2]
    gap = np.diff(np.linalg.eigvalsh(matrix))[1]
    # exp(-200 / 2) is nothing next to rounding.
    np.testing.assert_allclose(evaluate(matrix, 200 / gap), lowest @ lowest.T, atol=ROUNDING * 10)


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_derivative_in_the_matrix(is_complex, beta):
    matrix, direction = (hermitian(seed, is_complex=is_complex) for seed in (1, 2))
    difference = evaluate(matrix + STEP * direction, beta) - evaluate(matrix - STEP * direction, beta)
    np.testing.assert_allclose(change(matrix, direction, beta), difference / (2 * STEP), atol=DIFFERENCE)


def test_derivative_in_the_temperature():
    matrix = hermitian(3)
    difference = (evaluate(matrix, 4 + STEP) - evaluate(matrix, 4 - STEP)) / (2 * STEP)
    np.testing.assert_allclose(change(matrix, 0 * matrix, d_beta=1.0), difference, atol=DIFFERENCE)
    assert np.abs(difference).max() > 1e-2


@pytest.mark.parametrize("is_complex", [False, True])
def test_gradient_by_reverse_mode(is_complex):
    matrix, direction, weights = (hermitian(seed, is_complex=is_complex) for seed in (4, 5, 6))

    def observable(x, beta):
        moved = jnp.asarray(matrix) + x.astype(matrix.dtype) * jnp.asarray(direction)
        return jnp.real(jnp.sum(jnp.asarray(weights).T * fermi_matrix(moved, beta, jnp.asarray(FILLING))))

    slopes = jax.jit(jax.grad(observable, argnums=(0, 1)))(jnp.asarray(0.0), jnp.asarray(4.0))
    both = lambda *x: float(observable(*(jnp.asarray(y) for y in x)))  # noqa: E731
    assert float(slopes[0]) == pytest.approx((both(STEP, 4.0) - both(-STEP, 4.0)) / (2 * STEP), abs=DIFFERENCE)
    in_beta = (both(0.0, 4 + STEP) - both(0.0, 4 - STEP)) / (2 * STEP)
    assert float(slopes[1]) == pytest.approx(in_beta, abs=DIFFERENCE)


@pytest.mark.parametrize("is_complex", [False, True])
def test_finite_where_all_levels_are_equal(is_complex):
    direction = hermitian(7, is_complex=is_complex)
    matrix = np.eye(SIZE).astype(direction.dtype)
    filled = FILLING / SIZE
    np.testing.assert_allclose(evaluate(matrix), filled * np.eye(SIZE), atol=ROUNDING)
    traceless = direction - np.trace(direction) / SIZE * np.eye(SIZE)
    expected = -4.0 * filled * (1 - filled) * traceless
    np.testing.assert_allclose(change(matrix, direction), expected, atol=ROUNDING)


@pytest.mark.parametrize("splitting", [0.0, 1e-12, 1e-7, 2.4e-5, 2.6e-5, 1e-3])
def test_derivative_across_nearly_degenerate_levels(splitting):
    """Both sides of the gap, 1e-4 / beta, where divided differences become slopes."""
    rotation = np.linalg.eigh(hermitian(8))[1]
    matrix = (rotation * np.array([-1.0, 0.2, 0.2 + splitting, 0.2 + splitting, 0.9, 1.3])) @ rotation.T
    direction = hermitian(9)
    difference = evaluate(matrix + STEP * direction) - evaluate(matrix - STEP * direction)
    found = change(matrix, direction)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, difference / (2 * STEP), atol=DIFFERENCE)
    np.testing.assert_allclose(found, found.T, atol=ROUNDING * 1e3)  # rounding over the smallest gap used


FILLINGS = (2.0, 3.0, 5.0)
"""Of the sums of Fermi functions below."""


SQUARED = jnp.asarray([0.7, 0.0])
"""Weights of the square of the first function in two sums."""


def pairs_by_the_chain_rule(inverse, hamiltonian, shell, onsite, beta, fillings, weights, squared):
    matrix = hamiltonian + jnp.diag(onsite)
    functions = jnp.stack([fermi_matrix(matrix, beta, n) for n in fillings])
    filled = jnp.einsum("km,mab->kab", weights, functions) + squared[:, None, None] * (functions[0] @ functions[0])
    return inverse.T @ filled @ inverse, (functions[1] - functions[0]) @ shell


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_pairs_equal_the_chain_rule(seed, degenerate):
    """Value and both directions of differentiation, batched as in a training step."""
    generator = np.random.default_rng(seed)
    inverse = np.linalg.inv(np.tril(generator.normal(size=(SIZE, SIZE))) + 3 * np.eye(SIZE))
    basis = [jnp.asarray(part) for part in (inverse, hermitian(seed + 1))]
    if degenerate:
        basis[1] = jnp.diag(jnp.asarray([0.0, 0.0, 1.0, 1.0, 1.0, 2.0]))
    onsite = jnp.zeros(SIZE) if degenerate else jnp.asarray(generator.normal(size=SIZE))
    learned = (onsite, jnp.asarray(4.0), jnp.asarray(generator.normal(size=(2, 3))))
    steps = (jnp.asarray(generator.normal(size=SIZE)), jnp.asarray(0.3), jnp.asarray(generator.normal(size=(2, 3))))
    basis.append(jnp.asarray(generator.normal(size=(SIZE, 2))))
    matrices = jnp.asarray(generator.normal(size=(3, 2, SIZE, SIZE))), jnp.asarray(generator.normal(size=(3, SIZE, 2)))

    def derivatives(function):
        def pairs(onsite, beta, weights):
            return function(*basis, onsite, beta, jnp.asarray(FILLINGS), weights, SQUARED)

        value, forward = jax.jvp(pairs, learned, steps)
        _, pull_back = jax.vjp(pairs, *learned)
        return value, forward, *jax.vmap(pull_back)(matrices)

    found, expected = jax.jit(lambda: (derivatives(paired_levels), derivatives(pairs_by_the_chain_rule)))()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e3 * ROUNDING)  # the basis is conditioned like 1e2


def test_derivatives_are_finite_where_all_levels_are_full_or_empty():
    """With beta times the gap above 1500, both 1 - f and f round to zero; F is the projector and so is its change."""
    levels = np.diag([0.0, 0.1, 4.0, 4.1, 5.0, 6.0])
    direction = hermitian(3)
    found = change(levels, direction, beta=1e3)
    assert np.isfinite(found).all()
    expected = np.zeros((SIZE, SIZE))
    for i in range(2):
        for a in range(2, SIZE):
            expected[i, a] = expected[a, i] = direction[i, a] / (levels[i, i] - levels[a, a])
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_pairs_refuse_derivatives_in_the_basis():
    identity, two = jnp.eye(SIZE), jnp.ones(2)
    with pytest.raises(NotImplementedError, match="parameters only"):
        jax.jvp(
            lambda h: paired_levels(identity, h, identity, jnp.zeros(SIZE), 4 * two[0], two, two[None], two[:1]),
            (jnp.asarray(hermitian(0)),),
            (identity,),
        )


@pytest.mark.parametrize("is_complex", [False, True])
def test_eigenvectors_of_a_batch_are_constants(is_complex):
    """Also where levels are degenerate, whose vectors have no derivative."""
    matrices = np.stack([hermitian(seed, is_complex=is_complex) for seed in range(3)])
    matrices = np.concatenate([matrices, np.eye(SIZE)[None]])
    (levels, vectors), changes = jax.jvp(jax.vmap(eigenvectors), (matrices,), (np.ones_like(matrices),))
    np.testing.assert_allclose(levels, np.linalg.eigvalsh(matrices), atol=ROUNDING)
    levels, vectors = np.asarray(levels), np.asarray(vectors)
    np.testing.assert_allclose((vectors * levels[:, None]) @ vectors.conj().swapaxes(1, 2), matrices, atol=ROUNDING)
    assert all(not np.any(change) for change in changes)
