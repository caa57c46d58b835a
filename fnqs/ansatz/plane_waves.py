"""Plane waves as orbitals: the antisymmetric part of neural work on the electron gas, for comparison.

Both spins fill the N/2 waves of lowest kinetic energy at the backflow positions, with amplitudes that see all
electrons: psi = det[cos(k_n z_i - phi_n) (1 + gates_i . m(|k_n|))] for each spin (compare Pescia et al.,
Phys. Rev. B 110, 035108 (2024); Cassella et al., Phys. Rev. Lett. 130, 036401 (2023)). A wave and its opposite
appear as the two real combinations that the protons' potential makes of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fnqs.ansatz.message_passing import Linear
from fnqs.configuration import Configuration, wigner_seitz_radius
from fnqs.ewald import shortest_waves
from fnqs.laplacian.jet import Field, elementwise, linear, shift
from fnqs.model_config import ModelConfig
from fnqs.periodic.cell import reciprocal_vectors

LARGEST_SHELL = 24
"""Pairs of opposite waves of one length in the most symmetric lattice."""

FERMI_WAVE_NUMBER = (9 * np.pi / 4) ** (1 / 3)
"""Of the unpolarised electron gas, times r_s."""

CENTRES = np.linspace(0, 1, 5)
"""Of the Gaussians of |k|, in Fermi wave numbers, that an amplitude's dependence on the wave is made of."""

_DECIMALS = 6
"""To which two waves, in units of 1/r_s^2, and two structure factors over N are compared."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PlaneWaves:
    """The filled waves cos(k . z - phi) of one configuration (any leading batch axes).

    Attributes:
        vectors: (N/2, 3) wave vectors, 1/bohr.
        phases: (N/2,) phi.
    """

    vectors: np.ndarray | jax.Array
    phases: np.ndarray | jax.Array


def make_plane_waves(configuration: Configuration, cell: np.ndarray) -> PlaneWaves:
    """Choose the filled waves on the host.

    In the last shell, if there are too few electrons for it, the protons' density decides (first order of
    degenerate perturbation theory: of each wave the combination that is large at the protons), then the order of the
    wave numbers.

    Args:
        configuration: at Gamma.
        cell: (3, 3) bohr, its Minkowski-reduced cell.
    """
    protons = np.asarray(configuration.protons)
    pairs = len(protons) // 2
    waves = shortest_waves(cell, pairs + LARGEST_SHELL)[0] @ reciprocal_vectors(cell)
    structure = np.mean(np.exp(2j * protons @ waves.T), axis=0)
    # Where the protons do not tell the two combinations apart, the first proton does: any will do.
    tells = np.abs(structure) > 10.0**-_DECIMALS
    phases = 0.5 * np.angle(np.where(tells, structure, np.exp(2j * waves @ protons[0])))
    squares = np.sum(waves**2, axis=1) * wigner_seitz_radius(configuration) ** 2
    squares, sizes = np.round(squares, _DECIMALS), np.round(np.abs(structure), _DECIMALS)
    order = np.lexsort((np.concatenate([-sizes, sizes]), np.tile(squares, 2)))[: pairs - 1]
    vectors, phases = np.tile(waves, (2, 1))[order], np.concatenate([phases, phases + 0.5 * np.pi])[order]
    return PlaneWaves(np.concatenate([np.zeros((1, 3)), vectors]), np.concatenate([[0.0], phases]))


class WaveAmplitudes(nn.Module):
    """How the electrons' amplitudes act on each wave: a function of |k| r_s, given by the configuration's features."""

    config: ModelConfig

    @nn.compact
    def __call__(self, waves: PlaneWaves, features: jax.Array, r_s: jax.Array) -> jax.Array:
        """From mean features (F,) of the protons and r_s () in bohr to (D, A, N/2)."""
        shape = (self.config.determinants, self.config.amplitudes, len(CENTRES))
        coefficients = Linear(int(np.prod(shape)), name="head")(features).reshape(shape)
        reduced = jnp.linalg.norm(jnp.asarray(waves.vectors), axis=1) * r_s / FERMI_WAVE_NUMBER
        width = CENTRES[1] - CENTRES[0]
        functions = jnp.exp(-0.5 * ((reduced - CENTRES[:, None]) / width) ** 2)
        return coefficients @ functions.astype(features.dtype)


def wave_orbitals(waves: PlaneWaves, positions: Field) -> Field:
    """Orbitals (N, N/2) at electron positions (N, 3), bohr."""
    vectors, phases = jnp.asarray(waves.vectors), jnp.asarray(waves.phases)
    return elementwise(jnp.cos, shift(linear(lambda z: z @ vectors.T, positions), -phases[None]))
