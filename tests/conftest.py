"""Settings of the whole test suite: those of the commands, with strict shapes and dtypes."""

# ruff: noqa: E402 (functions are wrapped before other modules import them)
import importlib
import importlib.metadata
import inspect
import os
import signal
import tempfile
from pathlib import Path

QUICK_COMPILATION = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
"""With the first and without most passes XLA compiles our programs four times as fast; the second keeps it from cutting
each in 32 parts for threads that the other worker needs, an eighth of its time. A jaxlib that does not know a flag
aborts, so they are given to those that were tried."""

if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = " ".join(filter(None, [os.environ.get("XLA_FLAGS"), QUICK_COMPILATION]))

import jax
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import jaxtyped


def check_shapes(name: str) -> None:
    """Let a module's public functions and methods check the shapes and types they state, for whoever imports them."""
    module = importlib.import_module(name)
    own = [thing for thing in vars(module).values() if getattr(thing, "__module__", None) == name]
    for place in (module, *filter(inspect.isclass, own)):
        for key, function in list(vars(place).items()):
            if inspect.isfunction(function) and function.__module__ == name and not key.startswith("_"):
                setattr(place, key, jaxtyped(function, typechecker=beartype))


CHECKED = (
    "configuration",
    "ewald",
    "system",
    "wavefunction",
    "hamiltonian",
    "observables.derivatives",
    "observables.coulomb",
    "observables.correlations",
    "observables.momentum",
    "optimisation.natural_gradient",
)
"""Modules of fnqs whose signatures are checked, in the order in which they import each other."""

for checked in CHECKED:
    check_shapes(f"fnqs.{checked}")

from fnqs.configuration import make_configuration
from fnqs.model_config import ModelConfig
from fnqs.precision import configure
from fnqs_data.store.record import Record
from fnqs_train.config import SamplingConfig

# A shell that starts the tests in the background, or nohup, has their programs ignore what these tests send them.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # One folder for both workers and all the programs that tests start: what one has compiled the others read.
    _compiled = tempfile.TemporaryDirectory(prefix="fnqs-tests-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    jax.config.update("jax_compilation_cache_dir", _compiled.name)
configure()
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "allow")
jax.devices()  # one processor device for all tests, also after one that would take every core
# Tests compile far longer than they compute; without most of XLA's passes they compile twice as fast, here and in the
# programs that they start.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
jax.config.update("jax_disable_most_optimizations", True)

LONGEST_FIRST = (
    "test_sharding",
    "test_end_to_end",
    "test_dmc",
    "test_protocol",
    "test_observables",
    "test_energies_command",
    "test_step",
    "test_loop",
    "test_faults",
    "test_every_size",
    "test_bad_input",
    "test_wavefunction",
    "test_finetune",
    "test_label",
    "test_library_calls",
    "test_equation_of_state",
)
"""Modules that take longest: at the start, so that no worker is left with one of them when the others are done."""

MOST_MAPPINGS = 20_000
"""Memory mappings of this process above which compiled programs are dropped; Linux stops at 65,530 by default."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first; the order within a module stays."""
    rank = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="module", autouse=True)
def _bounded_mappings():
    """Drop compiled programs between modules: each maps dozens of regions, and XLA aborts where no more are allowed."""
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture(scope="session")
def small_model() -> ModelConfig:
    """The model of every test that trains: as small as it can be and still have all its parts."""
    return ModelConfig(features=8, vectors=4, amplitudes=4, radial_functions=4, proton_rounds=1)


@pytest.fixture(scope="session")
def small_sampling() -> SamplingConfig:
    """The sampling of every test that trains; equal shapes everywhere compile once."""
    return SamplingConfig(walkers_per_configuration=32, configurations_per_step=2, sweeps=5, equilibration_sweeps=20)


@pytest.fixture(scope="session")
def make_bcc():
    """A function (i, twist, split) that makes a reproducible, slightly disordered BCC record with N = 2."""

    def make(i: int, twist=(0.0, 0.0, 0.0), split: str = "train", **labels) -> Record:
        rng = np.random.default_rng(i)
        edge = 2.6 + 0.1 * i
        protons = edge * np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]) + rng.normal(scale=0.05, size=(2, 3))
        return Record(
            configuration=make_configuration(edge * np.eye(3), protons, twist),
            identifier=f"bcc-{i}",
            phase="bcc",
            split=split,
            **labels,
        )

    return make


@pytest.fixture(scope="session")
def uniform_bcc():
    """E/N (Ha) of uniform electrons among the protons of bcc with N = 2 in a cube of this edge (bohr), at Gamma.

    They have no kinetic energy. What is left is -0.895929 / r_s of each proton in a uniform background, and of each
    electron with its own images -2.837297 / 2 edge (the Madelung constants of bcc and of simple cubic). It is an upper
    bound of the ground state, which lies about 0.06 Ha lower: -1.2171 against -1.2745 (near the limit of CCSD) at an
    edge of 2.66 bohr. The tests grant it 0.07.
    """

    def energy(edge: float) -> float:
        return -(0.895929 * (8 * np.pi / 3) ** (1 / 3) + 2.837297 / 2) / edge

    return energy
