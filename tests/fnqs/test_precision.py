import jax
import numpy as np
import pytest
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

from fnqs.precision import BLAS_THREADS, configure


def blas_threads() -> list[int]:
    """Threads of every BLAS that this process has loaded."""
    assert scipy.linalg.cholesky(np.eye(2)).shape == (2, 2)
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch):
    for name in BLAS_THREADS:
        monkeypatch.delenv(name, raising=False)
    with threadpool_limits(2, user_api="blas"):
        yield


def test_the_libraries_of_numpy_and_scipy_work_on_one_thread():
    configure()
    assert set(blas_threads()) == {1}


@pytest.mark.parametrize("name", BLAS_THREADS)
def test_a_number_that_the_user_gives_is_left_alone(name, monkeypatch):
    monkeypatch.setenv(name, "2")
    configure()
    assert set(blas_threads()) == {2}


def kept_in() -> str | None:
    """Folder of compiled programs; JAX makes the attribute when it is imported."""
    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("chosen", ["", "elsewhere"])
def test_where_compiled_programs_are_kept(chosen, tmp_path, monkeypatch):
    before = kept_in()
    monkeypatch.setenv("FNQS_CACHE", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", chosen)
    try:
        configure()
        # What the user's variable says is known to JAX by itself.
        assert kept_in() == (before if chosen else str(tmp_path / "xla"))
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
