"""Process-wide numerical settings, applied once at the start of every command and of the test suite."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import scipy.linalg  # noqa: F401  its BLAS must be loaded before its threads can be counted
from threadpoolctl import threadpool_limits

from fnqs.errors import InputError

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""Variables of the environment by which a user says how many threads BLAS takes."""


def configure(*, compilation_cache: bool = True, tf32: bool = False) -> None:
    """Allow float64, fix the precision of matrix products and keep compiled programs between runs.

    The network runs in float32; solves, Ewald constants and statistics in float64. BLAS and LAPACK of numpy and scipy,
    which JAX calls on processors, work on one thread unless a variable of `BLAS_THREADS` is set: theirs wait for each
    other at every small matrix, and for long where a core is taken by another program, by XLA or by another such call.

    Args:
        compilation_cache: keep compiled programs in `cache_folder() / "xla"`, or where JAX_COMPILATION_CACHE_DIR says.
        tf32: let accelerators round float32 matrix products to TensorFloat-32.
    """
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest")
    if compilation_cache:
        if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    if not any(os.environ.get(name) for name in BLAS_THREADS):
        threadpool_limits(1, user_api="blas")


def require_float64() -> None:
    """Refuse to compute where JAX would round everything to float32.

    Raises:
        InputError: `configure` has not been called in this process.
    """
    if not jax.config.read("jax_enable_x64"):
        raise InputError("float64 is off, and digits would be lost; call fnqs.configure() before anything is computed")


def cache_folder() -> Path:
    """Return the folder for what can be made again: FNQS_CACHE, else XDG_CACHE_HOME/fnqs, else ~/.cache/fnqs."""
    if chosen := os.environ.get("FNQS_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fnqs"
