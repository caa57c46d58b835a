"""Deformed copies of a configuration, for derivatives of log psi by strain and by the protons' positions.

What the wave function knows of a configuration is prepared on the host (orbital integrals, filled levels), so log psi
is differentiated by central differences between configurations that are prepared anew. That asks nothing of the
ansatz, and costs two evaluations of psi for each derivative.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np

from fnqs.configuration import Configuration
from fnqs.model_config import ModelConfig
from fnqs.system import make_system, stack_systems
from fnqs.wavefunction import Context

STRAIN_STEP = 0.005
"""Half of the difference between two strains."""

PROTON_STEP = 0.01
"""Half of the difference between two positions of a proton, bohr; float32 leaves an error of 1e-3 / bohr at most."""

STRAINS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Components of a symmetric strain in the order of Voigt, as ASE has them."""

PREPARED_TOGETHER = 12
"""Deformed configurations whose integrals are in memory together."""

Derivatives = Literal["none", "stress", "all"]
"""Derivatives of log psi: none (the virial pressure alone), by strain, by strain and protons."""


@dataclass(frozen=True)
class Deformed:
    """Pairs of configurations on both sides of the one that is measured.

    Attributes:
        contexts: stacked (D, 2), the first of each pair in the positive direction; None where D is 0.
        transforms: (D, 2, 3, 3) F: electrons r go to r F.
        steps: (D,) half of the difference between the two.
    """

    contexts: Context | None
    transforms: np.ndarray
    steps: np.ndarray


def count(derivatives: Derivatives, number: int) -> int:
    """Count the derivatives D of log psi for N protons: six strains first, then the protons' coordinates."""
    return {"none": 0, "stress": len(STRAINS), "all": len(STRAINS) + 3 * number}[derivatives]


def deformed_contexts(
    encode: Callable, params: dict, configuration: Configuration, config: ModelConfig, derivatives: Derivatives
) -> Deformed:
    """Prepare all deformed copies.

    Args:
        encode: a compiled `encode` of stacked systems.
        params: of the model.
        configuration: to deform.
        config: of the model.
        derivatives: which.
    """
    complex_ = bool(np.any(np.asarray(configuration.twist)))
    pairs = [_strained(configuration, *STRAINS[place]) for place in range(6)] if derivatives != "none" else []
    if derivatives == "all":
        pairs += [_moved(configuration, place) for place in range(3 * len(configuration.protons))]
    if not pairs:
        return Deformed(None, np.zeros((0, 2, 3, 3)), np.zeros(0))
    every = [side for pair, _, _ in pairs for side in pair]
    contexts = []
    for start in range(0, len(every), PREPARED_TOGETHER):
        part = every[start : start + PREPARED_TOGETHER]
        part += [part[-1]] * (PREPARED_TOGETHER - len(part))  # one shape, one program
        systems = stack_systems([make_system(each, config, force_complex=complex_) for each in part])
        contexts.append(jax.tree.map(np.asarray, encode(params, systems)))
    joined = jax.tree.map(
        lambda *leaves: np.concatenate(leaves)[: len(every)].reshape(len(pairs), 2, *leaves[0].shape[1:]), *contexts
    )
    return Deformed(joined, np.stack([turn for _, turn, _ in pairs]), np.array([step for *_, step in pairs]))


def strained(configuration: Configuration, strain: np.ndarray) -> Configuration:
    """Move cell and protons by r -> r (1 + strain); the twist keeps its fractions."""
    turn = np.eye(3) + strain
    return dataclasses.replace(
        configuration, cell=np.asarray(configuration.cell) @ turn, protons=np.asarray(configuration.protons) @ turn
    )


def _strained(configuration: Configuration, first: int, second: int):
    unit = np.zeros((3, 3))
    unit[first, second] += 0.5
    unit[second, first] += 0.5
    sides = [sign * STRAIN_STEP * unit for sign in (1, -1)]
    pair = [strained(configuration, side) for side in sides]
    return pair, np.stack([np.eye(3) + side for side in sides]), STRAIN_STEP


def _moved(configuration: Configuration, place: int):
    pair = []
    for sign in (1, -1):
        protons = np.array(configuration.protons)
        protons[place // 3, place % 3] += sign * PROTON_STEP
        pair.append(dataclasses.replace(configuration, protons=protons))
    return pair, np.stack([np.eye(3)] * 2), PROTON_STEP
