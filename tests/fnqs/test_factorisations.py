"""Factorisations of batches against numpy and jax, and that the library never gets a batch."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.factorisations import cholesky, eigenvectors, inverse, phase_and_log_determinant

ROUNDING = 1e-12
"""Float64, magnified by the condition of matrices whose singular values lie between 1 and 3."""

SHAPES = [(1, 1), (4, 4), (27, 27)]


def matrices(shape, is_complex: bool, batch=(3, 2)) -> np.ndarray:
    """Random matrices (3, 2, n, n) with singular values from 1 to 3."""
    rng = np.random.default_rng(shape[0] + is_complex)
    values = rng.normal(size=(*batch, *shape))
    values = values + 1j * rng.normal(size=values.shape) if is_complex else values
    left, _, right = np.linalg.svd(values)
    return (left * np.linspace(1, 3, shape[0])) @ right


def over_batch(function):
    """Vectorise over both axes of the batch, the second one first."""
    return jax.vmap(jax.vmap(function), 1, 1)


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_batches_against_numpy(shape, is_complex):
    given = matrices(shape, is_complex)
    hermitian = given @ np.conj(np.swapaxes(given, -1, -2))
    phase, log = jax.jit(over_batch(phase_and_log_determinant))(given)
    expected = np.linalg.slogdet(given)
    np.testing.assert_allclose(phase, expected.sign, atol=ROUNDING)
    np.testing.assert_allclose(log, expected.logabsdet, atol=ROUNDING)
    np.testing.assert_allclose(jax.jit(over_batch(inverse))(given), np.linalg.inv(given), atol=ROUNDING)
    np.testing.assert_allclose(jax.jit(over_batch(cholesky))(hermitian), np.linalg.cholesky(hermitian), atol=ROUNDING)
    levels, vectors = jax.jit(over_batch(eigenvectors))(hermitian)
    np.testing.assert_allclose(levels, np.linalg.eigvalsh(hermitian), atol=ROUNDING)
    vectors = np.asarray(vectors)
    np.testing.assert_allclose(hermitian @ vectors, vectors * np.asarray(levels)[..., None, :], atol=10 * ROUNDING)


@pytest.mark.parametrize("is_complex", [False, True])
def test_derivatives_against_jax(is_complex):
    """First and second derivatives in both directions are those of jax's own functions."""
    shape = (4, 4)
    given = jnp.asarray(matrices(shape, is_complex))
    rng = np.random.default_rng(9)
    direction = jnp.asarray(rng.normal(size=given.shape)).astype(given.dtype)
    weight = jnp.asarray(rng.normal(size=shape)).astype(given.dtype)

    def total(determinant, inverted):
        def one(matrix):
            phase, log = determinant(matrix)
            return log + jnp.real(phase * 1j if is_complex else phase) + jnp.real(jnp.sum(weight * inverted(matrix)))

        return lambda values: jnp.sum(over_batch(one)(values))

    ours = total(phase_and_log_determinant, inverse)
    theirs = total(lambda matrix: tuple(jnp.linalg.slogdet(matrix)), jnp.linalg.inv)
    for derivative in (
        lambda f: jax.grad(f)(given),
        lambda f: jax.jvp(f, (given,), (direction,))[1],
        lambda f: jax.jvp(jax.grad(f), (given,), (direction,))[1],
    ):
        np.testing.assert_allclose(derivative(ours), derivative(theirs), atol=10 * ROUNDING)


def test_a_singular_matrix_has_no_logarithm():
    phase, log = jax.vmap(phase_and_log_determinant)(np.stack([np.zeros((3, 3)), np.eye(3)]))
    np.testing.assert_array_equal(log, [-np.inf, 0.0])
    np.testing.assert_array_equal(phase, [0.0, 1.0])


def test_a_reverse_derivative_that_is_not_defined_is_refused():
    with pytest.raises(Exception, match="does not support reverse-mode"):
        jax.grad(lambda matrix: jnp.sum(cholesky(matrix)))(jnp.eye(3))


MANY_DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec
from fnqs.factorisations import eigenvectors, inverse, phase_and_log_determinant
from fnqs.precision import configure

configure(compilation_cache=False)
devices, rounds = int(sys.argv[1]), int(sys.argv[2])
jax.config.update("jax_num_cpu_devices", devices)
mixing = np.random.default_rng(1).normal(size=(2304, 2304)) * 1e-2

def on_a_device(matrices):
    def sweep(matrices, _):
        mixed = (matrices.reshape(len(matrices), -1) @ mixing).reshape(matrices.shape) + matrices
        logs = jax.vmap(phase_and_log_determinant)(mixed)[1]
        inverted = jax.vmap(inverse)(mixed[:8])
        levels = jax.vmap(eigenvectors)(mixed[:8] + jnp.swapaxes(mixed[:8], 1, 2))[0]
        total = jax.lax.psum(jnp.mean(logs) + jnp.mean(jnp.tanh(inverted)) + jnp.mean(levels), "devices")
        return matrices + 1e-3 * jnp.tanh(total), None
    return jax.lax.scan(sweep, matrices, None, length=2)[0]

mesh = Mesh(np.array(jax.devices()), ("devices",))
cut = PartitionSpec("devices")
step = jax.jit(jax.shard_map(on_a_device, mesh=mesh, in_specs=cut, out_specs=cut, check_vma=False))
matrices = np.random.default_rng(0).normal(size=(128 * devices, 48, 48))
for _ in range(rounds):
    assert np.all(np.isfinite(step(matrices)))
print(len(mesh.devices), "devices ended", flush=True)
"""


@pytest.mark.parametrize("devices", [2, 4])
def test_devices_that_share_their_threads_end(devices):
    """Determinants of 96 electrons after a product on the pool of threads, then an exchange between the devices.

    With a batch a call, as jax has it, two devices on two cores sleep in the first round for ever. One of these rounds
    takes a tenth of a second, the start with its compilation three.
    """
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-c", MANY_DEVICES, str(devices), "5"]
    found = subprocess.run(command, env=environment, timeout=300, capture_output=True, text=True, check=False)
    assert found.stdout == f"{devices} devices ended\n", found.stderr[-2000:]
