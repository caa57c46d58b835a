"""What is measured: a crystal of N protons with equilibrated walkers, made as a training run makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.configuration import Configuration, make_configuration
from fnqs.system import System, make_system, stack_systems
from fnqs.wavefunction import Context, WaveFunction
from fnqs_data.generate.crystals import lattice
from fnqs_train.config import RunConfig
from fnqs_train.equilibration import make_equilibration
from fnqs_train.walkers import START_WIDTH

DENSITY = 1.31
"""r_s in bohr, where the field compares its energies of bcc hydrogen."""

CUBES = {8: ("sc", 2), 16: ("bcc", 2), 32: ("fcc", 2), 54: ("bcc", 3)}
"""Lattice and repetitions of its conventional cube; any other N takes the most compact supercell of bcc."""

SEED = 1


@dataclass(frozen=True)
class Case:
    """One N to be measured.

    Attributes:
        config: of a run; its model, optimiser and sampling are those of training.
        number: N.
        seconds: spent on repeating the phases, at least.
        tf32: whether accelerators may round matrix products.
        params: host arrays to measure with, or None for new ones.
    """

    config: RunConfig
    number: int
    seconds: float
    tf32: bool
    params: dict | None

    @property
    def crystal(self) -> str:
        """What the protons are, for a reader."""
        if self.number not in CUBES:
            return "bcc, compact"
        phase, repeats = CUBES[self.number]
        return f"{phase} {repeats}x{repeats}x{repeats}"

    def configuration(self, displacement: float = 0.0, seed: int = SEED) -> Configuration:
        """Give the crystal, its protons moved by normal displacements of that standard deviation (bohr)."""
        phase, repeats = CUBES.get(self.number, ("bcc", None))
        cell, sites = lattice(phase, self.number, (repeats,) * 3 if repeats else None)[0]
        edge = (4 * np.pi / 3) ** (1 / 3) * DENSITY
        noise = np.random.default_rng(seed).normal(size=sites.shape)
        return make_configuration(cell * edge, sites * edge + displacement * noise)


@dataclass(frozen=True)
class State:
    """Everything the phases of one case start from.

    Attributes:
        params: of the wave function.
        systems: K of them, stacked, on the host.
        contexts: of the same K.
        walkers: (K, n, N, 3) bohr, equilibrated.
        widths: (K,) bohr.
        compile_seconds: of the two programs that ran to get here, with an empty cache.
    """

    params: dict
    systems: System
    contexts: Context
    walkers: jax.Array
    widths: jax.Array
    compile_seconds: dict[str, float]


def make_state(case: Case, clock: Callable[[], float]) -> State:
    """Draw parameters and walkers and equilibrate these, as a run does at its start."""
    config, wavefunction = case.config, WaveFunction(case.config.model)
    configurations, walkers = config.sampling.configurations_per_step, config.sampling.walkers_per_configuration
    system = make_system(case.configuration(), config.model)
    systems = stack_systems([system] * configurations)
    key = jax.random.key(SEED)

    began = clock()
    initialise = jax.jit(wavefunction.init).lower(key, system).compile()
    compile_seconds = {"init": clock() - began}
    params = initialise(key, system) if case.params is None else jax.tree.map(jnp.asarray, case.params)
    positions = jnp.zeros((configurations, walkers, case.number, 3), jnp.float32)
    widths, fresh = jnp.full((configurations,), START_WIDTH, jnp.float32), jnp.ones((configurations,), bool)
    equilibrate = cast(jax.stages.Wrapped, make_equilibration(wavefunction, config.sampling))
    began = clock()
    compiled = equilibrate.lower(params, systems, positions, widths, fresh, ~fresh, key).compile()
    compile_seconds["equilibration"] = clock() - began
    positions, widths, *_ = compiled(params, systems, positions, widths, fresh, ~fresh, key)
    contexts = jax.jit(jax.vmap(partial(wavefunction.encode, params)))(systems)
    return State(params, systems, contexts, positions, widths, compile_seconds)
