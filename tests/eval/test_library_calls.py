"""The compiled programs of sampling, local energies and training call no library function that waits for threads.

On a processor such a call sleeps on a thread of the pool that has to do its work (`fnqs.factorisations`), so that a
program hangs where enough of them meet: a matter of the number of cores, devices and matrices. Rather than on runs
that end, this rests on the programs themselves.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.configuration import make_configuration
from fnqs.factorisations import cholesky, eigenvectors, inverse, phase_and_log_determinant
from fnqs.model_config import ModelConfig
from fnqs.optimisation.subspace import ALL, Trained
from fnqs.system import make_system, stack_systems
from fnqs.wavefunction import WaveFunction
from fnqs_eval.energies.slots import how, make_sampling, make_slot_mesh, make_start
from fnqs_train.chunks import Chunks
from fnqs_train.config import OptimizerConfig, SamplingConfig
from fnqs_train.equilibration import make_equilibration
from fnqs_train.step import Learned, make_optimizer, make_step

CONFIGURATIONS, WALKERS = 2, 8
GAMMA, GENERAL = (0.0, 0.0, 0.0), (0.1, -0.2, 0.4)

CALL = re.compile(r"custom_call @(\w+)\(.*? : \((.*?)\) ->")
"""Name and operands of a call in a lowered program."""

HARMLESS = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "xla.sdy.FuncResultSharding"}
"""Calls that say where arrays lie, and do nothing."""


def calls(program) -> set[tuple[str, int]]:
    """Name of every library function that a lowered program calls, with the number of matrices it gets at once."""
    text = program.as_text()
    assert "stablehlo.fft" not in text  # which waits in the same way
    assert text.count("stablehlo.custom_call") == len(CALL.findall(text))
    found = set()
    for name, operands in CALL.findall(text):
        if name not in HARMLESS:
            shape = [int(length) for length in re.findall(r"(\d+)x", operands.split(",")[0])]
            found.add((name, int(np.prod(shape[:-2]))))
    return found


def assert_one_at_a_time(program, *functions: str) -> None:
    """Check that LAPACK functions are called, those whose names end so among them, and with one matrix at a time."""
    found = calls(program)
    assert all(name.startswith("lapack_") and count == 1 for name, count in found), found
    for function in functions:
        assert any(name.endswith(f"{function}_ffi") for name, _ in found), (function, found)


class Programs:
    """Programs of one model, lowered for two configurations of N atoms."""

    def __init__(self, model: ModelConfig, number: int, twist: tuple[float, float, float]):
        rng = np.random.default_rng(number)
        edge = (4 * np.pi / 3 * number) ** (1 / 3) * 1.4
        protons = edge * rng.uniform(size=(CONFIGURATIONS, number, 3))
        systems = [make_system(make_configuration(edge * np.eye(3), place, twist), model) for place in protons]
        self.systems = stack_systems(systems)
        self.wavefunction = WaveFunction(model)
        self.params = jax.eval_shape(self.wavefunction.init, jax.random.key(0), systems[0])
        self.walkers = jax.ShapeDtypeStruct((CONFIGURATIONS, WALKERS, number, 3), jnp.float32)
        self.widths = np.full(CONFIGURATIONS, 0.3, np.float32)
        self.seeds = np.zeros(CONFIGURATIONS, np.uint32)
        self.groups = np.ones(1, np.int32)

    def evaluation(self):
        """Start, and equilibration and measurement, one group of both configurations."""
        mesh = make_slot_mesh()
        start = make_start(self.wavefunction, WALKERS, CONFIGURATIONS, mesh)
        arguments = (self.params, self.systems, self.seeds, self.groups)
        yield start.lower(*arguments)
        contexts, walkers, patterns, widths = jax.eval_shape(start, *arguments)
        sample = make_sampling(self.wavefunction, 4, CONFIGURATIONS, mesh)
        stacked = (contexts, self.systems, walkers, widths, patterns, self.seeds, self.seeds)
        yield sample.lower(self.params, *stacked, self.groups, *how(4, 2, 0.5))

    def step(self, trained=ALL):
        """One step of training."""
        optimizer = make_optimizer(OptimizerConfig())
        sampling = SamplingConfig(walkers_per_configuration=WALKERS, sweeps=2)
        chunks = Chunks(energy=4, gradient=8)
        learned = jax.eval_shape(lambda params: Learned(params, optimizer.init(params)), self.params)
        step = make_step(self.wavefunction, optimizer, sampling, 5.0, chunks, trained=trained)
        return step.lower(learned, self.systems, self.walkers, self.widths, jax.random.key(0))

    def equilibration(self, **options):
        """Equilibration of training."""
        sampling = SamplingConfig(walkers_per_configuration=WALKERS, **options)
        equilibrate = make_equilibration(self.wavefunction, sampling)
        fresh = np.ones(CONFIGURATIONS, bool)
        return equilibrate.lower(self.params, self.systems, self.walkers, self.widths, fresh, ~fresh, jax.random.key(0))


def test_a_batch_is_found():
    """What the others rest on: the check sees what jax's own functions do, and the names are those of this jaxlib."""
    matrices = np.broadcast_to(np.eye(3), (5, 2, 3, 3))
    batch = jax.jit(lambda x: (jnp.linalg.slogdet(x), jnp.linalg.eigh(x), jnp.linalg.cholesky(x), jnp.linalg.inv(x)))
    found = calls(batch.lower(matrices))
    assert {count for _, count in found} == {10}
    assert {name for name, _ in found} == {f"lapack_d{name}_ffi" for name in ("getrf", "syevd", "potrf")} | {
        "lapack_dtrsm_ffi"
    }

    def alone(matrix):
        return phase_and_log_determinant(matrix), eigenvectors(matrix), cholesky(matrix), inverse(matrix)

    assert calls(jax.jit(jax.vmap(jax.vmap(alone))).lower(matrices)) == {(name, 1) for name, _ in found}


@pytest.mark.parametrize(("number", "twist"), [(6, GAMMA), (2, GENERAL)])
def test_evaluation(small_model, number, twist):
    """N = 6 has an open shell, N = 2 matrices of one number; several determinants are summed."""
    programs = Programs(dataclasses.replace(small_model, determinants=2), number, twist)
    for program in programs.evaluation():
        assert_one_at_a_time(program, "getrf")


@pytest.mark.parametrize(
    ("number", "twist", "options"),
    [(6, GAMMA, {}), (2, GENERAL, {}), (2, GAMMA, {"trained": Trained("low-rank", 2)})],
)
def test_training(small_model, number, twist, options):
    eigenvectors = "heevd" if any(twist) else "syevd"
    assert_one_at_a_time(Programs(small_model, number, twist).step(**options), "getrf", eigenvectors, "potrf")


@pytest.mark.parametrize("antisymmetric", ["slater", "plane_waves"])
def test_the_equilibration_of_training(small_model, antisymmetric):
    programs = Programs(dataclasses.replace(small_model, antisymmetric=antisymmetric), 2, GAMMA)
    assert_one_at_a_time(programs.equilibration(move="langevin"), "getrf")
