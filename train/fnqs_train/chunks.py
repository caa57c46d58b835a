"""How many walkers are differentiated together: bounds the memory, and fits a processor's cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax

from fnqs.model_config import ModelConfig

CACHED_ENERGY, CACHED_GRADIENT = 2**12, 2**13
"""Pairs of electrons, N^2 a walker, that run fastest together on a processor (measured for N = 4, 8, 16 and 54)."""

FEWEST_ENERGY, FEWEST_GRADIENT = 2, 4
"""Walkers together on a processor at least, however many electrons they have."""

ACCELERATOR_BYTES = 2**32
"""Memory (bytes) that one chunk may take on an accelerator."""

LIVE_FIELDS = 24
"""Estimate of how many arrays (3N derivatives of N electrons' features each) are in memory at once."""


@dataclass(frozen=True)
class MemoryConfig:
    """What may be in memory together; 0 leaves the choice to the program.

    Attributes:
        energy_walkers: walkers whose local energies are computed together.
        gradient_walkers: walkers whose parameter derivatives are computed together.
        prepared_bytes: host memory (bytes) for integrals of configurations that will be visited again.
    """

    energy_walkers: int = 0
    gradient_walkers: int = 0
    prepared_bytes: int = 400_000_000


class Chunks(NamedTuple):
    """Walkers together in the two phases of a step; the results do not depend on them.

    Attributes:
        energy: of the local energies.
        gradient: of the parameter derivatives.
    """

    energy: int
    gradient: int


def choose_chunks(n_electrons: int, model: ModelConfig, memory: MemoryConfig | None = None) -> Chunks:
    """Choose for N electrons on the default device; what `memory` sets is taken from there."""
    memory = memory or MemoryConfig()
    if jax.default_backend() == "cpu":
        energy = max(FEWEST_ENERGY, CACHED_ENERGY // n_electrons**2)
        gradient = max(FEWEST_GRADIENT, CACHED_GRADIENT // n_electrons**2)
    else:
        # The local energy has 3N derivatives of N features; a gradient has pairs of electrons instead.
        one = 4 * LIVE_FIELDS * 3 * n_electrons**2 * model.features
        energy = gradient = max(1, ACCELERATOR_BYTES // one)
    return Chunks(memory.energy_walkers or energy, memory.gradient_walkers or gradient)
