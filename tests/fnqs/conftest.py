"""A small wave function in float64 and a few cells to try it on."""

import dataclasses
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.configuration import Configuration, make_configuration
from fnqs.hamiltonian import local_energy
from fnqs.model_config import ModelConfig
from fnqs.system import System, make_system
from fnqs.wavefunction import Context, WaveFunction

SMALL = ModelConfig(features=8, vectors=4, amplitudes=4, radial_functions=4)
NOISE = 0.05
"""Standard deviation added to every parameter, so that no part of the network is zero by its initial values."""

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiler options: each program runs a few times only, so compiling fast matters more than running fast."""


def compile_quickly(function):
    """Compile a function fast rather than well."""
    return jax.jit(function, compiler_options=QUICK)


@dataclass(frozen=True)
class Case:
    """One configuration with everything made from it, and electrons (N, 3) in bohr."""

    configuration: Configuration
    system: System
    context: Context
    electrons: jax.Array


def complex_log_psi(wavefunction: WaveFunction):
    """Function (params, context, electrons) giving real and imaginary part (2,) of log psi."""

    def parts(params, context, electrons):
        phase, log = wavefunction.log_psi(params, context, electrons)
        return jnp.stack([log, jnp.angle(phase)])

    return parts


class Model:
    """A wave function with noisy float64 parameters and its compiled parts."""

    def __init__(self, config: ModelConfig):
        self.config = config
        self.wavefunction = WaveFunction(config)
        self.encode = compile_quickly(self.wavefunction.encode)
        self.log_psi_of = compile_quickly(self.wavefunction.log_psi)
        self._walkers_log_psi = compile_quickly(jax.vmap(self.wavefunction.log_psi, (None, None, 0)))
        self._gradient = compile_quickly(jax.grad(lambda *a: self.wavefunction.log_psi(*a)[1], argnums=2))
        self.complex_log_psi = complex_log_psi(self.wavefunction)
        self._local_energy = compile_quickly(lambda *a: local_energy(self.wavefunction, *a))
        protons = [[0.0, 0.0, 0.0], [1.4, 0.0, 0.0]]
        system = make_system(make_configuration(3 * np.eye(3), protons), config)
        initial = compile_quickly(self.wavefunction.init)(jax.random.key(0), system)
        leaves, structure = jax.tree.flatten(initial)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        noisy = [
            leaf.astype(jnp.float64) + NOISE * jax.random.normal(key, leaf.shape, jnp.float64)
            for leaf, key in zip(leaves, keys, strict=True)
        ]
        self.params = jax.tree.unflatten(structure, noisy)

    def prepare(self, configuration: Configuration, electrons, *, force_complex: bool = False) -> Case:
        system = make_system(configuration, self.config, force_complex=force_complex)
        context = self.encode(self.params, system)
        return Case(configuration, system, context, jnp.asarray(electrons, jnp.float64))

    def case(self, number: int, twist=(0.0, 0.0, 0.0), seed: int = 0, radius: float = 1.4) -> Case:
        """A triclinic cell of r_s = `radius` with protons and electrons on a jittered grid: no close pairs."""
        generator = np.random.default_rng(seed)
        length = (4 * np.pi * number / 3) ** (1 / 3)
        cell = length * (np.eye(3) + generator.uniform(-0.15, 0.15, (3, 3)))
        cell *= radius * length / np.cbrt(abs(np.linalg.det(cell)))
        steps = np.array(list(itertools.product(range(3), repeat=3)))[generator.permutation(27)[: 2 * number]]
        points = (steps + generator.uniform(-0.2, 0.2, steps.shape)) / 3 @ cell
        return self.prepare(make_configuration(cell, points[:number], twist), points[number:])

    def log_psi(self, case: Case, electrons=None) -> tuple[complex, float]:
        """Phase and log|psi| of one walker."""
        electrons = case.electrons if electrons is None else jnp.asarray(electrons, jnp.float64)
        phase, log = self.log_psi_of(self.params, case.context, electrons)
        return complex(phase), float(log)

    def log_psi_of_walkers(self, case: Case, walkers) -> tuple[np.ndarray, np.ndarray]:
        """Phases and log|psi| of walkers (n, N, 3)."""
        phase, log = self._walkers_log_psi(self.params, case.context, jnp.asarray(walkers, jnp.float64))
        return np.asarray(phase), np.asarray(log)

    def gradient(self, case: Case, electrons) -> np.ndarray:
        """Gradient (N, 3) of log|psi| in the electrons, 1/bohr."""
        return np.asarray(self._gradient(self.params, case.context, jnp.asarray(electrons, jnp.float64)))

    def local_energy(self, case: Case, electrons=None) -> complex:
        """Local energy of the cell, Ha."""
        electrons = case.electrons if electrons is None else jnp.asarray(electrons, jnp.float64)
        return complex(self._local_energy(self.params, case.context, case.system, electrons))


@pytest.fixture(scope="session")
def model() -> Model:
    """The small model shared by all tests of the physics core."""
    return Model(SMALL)


@pytest.fixture(scope="session")
def two_terms() -> Model:
    """The same with two determinants."""
    return Model(ModelConfig(features=8, vectors=4, amplitudes=4, radial_functions=4, determinants=2, message_rounds=2))


@pytest.fixture(scope="session")
def slater() -> Model:
    """The same with a Slater determinant."""
    return Model(dataclasses.replace(SMALL, antisymmetric="slater"))


@pytest.fixture(scope="session")
def moments() -> Model:
    """The same with local moments."""
    return Model(dataclasses.replace(SMALL, antisymmetric="moments"))


@pytest.fixture(scope="session")
def plane_waves() -> Model:
    """The same with plane waves."""
    return Model(dataclasses.replace(SMALL, antisymmetric="plane_waves"))


@pytest.fixture
def any_model(request, name) -> Model:
    """The model of a test that is parametrised by the names of the fixtures above."""
    return request.getfixturevalue(name)


@pytest.fixture(scope="session")
def compiled():
    """jax.jit with the options for compiling fast."""
    return compile_quickly
