"""Factorisations of small matrices, which on a processor the library is handed one at a time.

jaxlib's LAPACK calls cut a batch of matrices into tasks, give them to the pool of threads that XLA computes with, and
sleep until they are done. The calls run on threads of that pool themselves. Where as many of them sleep at once as it
has threads, nobody is left to do the tasks and the program never ends: two devices on two cores, or calls beside each
other in one program. A call with a single matrix does it at once and waits for nobody; the loop over the matrices
costs some half a microsecond for each. So nothing here, and nothing else in the package, may call LAPACK with a batch
on a processor; a test reads the compiled programs.

On an accelerator nothing waits, and batches stay together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def one_at_a_time(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """Make a function of one matrix (n, m) that takes those of a batch one after another on a processor.

    Batches of any number of axes, from `jax.vmap`, become one loop. It has no reverse derivative: where one is needed
    it has to be given, by `jax.custom_jvp` around it.
    """

    @jax.custom_batching.custom_vmap
    def looped(matrices: jax.Array) -> Any:
        if matrices.ndim == 2:
            return function(matrices)
        found = jax.lax.map(function, matrices.reshape(-1, *matrices.shape[-2:]))
        return jax.tree.map(lambda leaf: leaf.reshape(*matrices.shape[:-2], *leaf.shape[1:]), found)

    @looped.def_vmap
    def _(axis_size: int, in_batched: list[bool], matrices: jax.Array):
        del axis_size, in_batched
        found = looped(matrices)
        return found, jax.tree.map(lambda _: True, found)

    return lambda matrix: looped(matrix) if jax.default_backend() == "cpu" else function(matrix)


_eigh = one_at_a_time(lambda matrix: tuple(jnp.linalg.eigh(matrix)))
_slogdet = one_at_a_time(lambda matrix: tuple(jnp.linalg.slogdet(matrix)))
_inverse = one_at_a_time(jnp.linalg.inv)
_cholesky = one_at_a_time(jnp.linalg.cholesky)


@jax.custom_jvp
def eigenvectors(hamiltonian: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Find ascending levels (B,) and vectors (B, B) of a Hermitian matrix, as constants: their derivatives are zero."""
    return _eigh(hamiltonian)


@eigenvectors.defjvp
def _eigenvectors_jvp(primals, tangents):
    del tangents
    values = eigenvectors(*primals)
    return values, jax.tree.map(jnp.zeros_like, values)


@jax.custom_jvp
def phase_and_log_determinant(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Phase () and log |det| () of a square matrix (n, n), as `jax.numpy.linalg.slogdet`."""
    return _slogdet(matrix)


@phase_and_log_determinant.defjvp
def _phase_and_log_determinant_jvp(primals, tangents):
    (matrix,), (change,) = primals, tangents
    phase, log = phase_and_log_determinant(matrix)
    slope = jnp.einsum("ij,ji->", inverse(matrix), change)  # of log det (Jacobi's formula)
    if jnp.iscomplexobj(matrix):
        return (phase, log), (phase * jax.lax.complex(jnp.zeros_like(log), jnp.imag(slope)), jnp.real(slope))
    return (phase, log), (jnp.zeros_like(phase), slope)


@jax.custom_jvp
def inverse(matrix: jax.Array) -> jax.Array:
    """Inverse of a square matrix (n, n)."""
    return _inverse(matrix)


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    (matrix,), (change,) = primals, tangents
    found = inverse(matrix)
    return found, -found @ change @ found


def cholesky(matrix: jax.Array) -> jax.Array:
    """Lower Cholesky factor of a positive definite matrix (n, n), whose reverse derivative is not defined."""
    return _cholesky(matrix)
