"""Backflow that differs from level to level: amplitudes of the levels of H that depend on the electron.

In a crystal all protons are alike, so factors of the protons' orbitals act on a state near the Fermi level as they act
on the bottom of the band. Smooth functions of the mean-field Hamiltonian tell them apart: u(i) = chi(i) (1 + sum_l
h_l(i) T_l), where the T_l are bumps over the spectrum of H that sum to one and h_l(i) is read out of the features of
electron i, for each shell of the protons' orbitals. T_l is a function of a matrix: it needs no gauge, does not see
whether levels are degenerate, is smooth in the protons, and means the same in every cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.laplacian.jet import Field, Jet
from fnqs.laplacian.particle_jet import ParticleJet, along_and_across, gated

OUTERMOST = 0.8
"""Centre of the last bump, in tanh((energy - mu) / E_F), as of the first one with the other sign."""

WIDTH = 0.3
"""Of a bump, in the same variable: its neighbours overlap it, so that every level has a smooth weight."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LevelGates:
    """How gates act on orbitals through the levels of H (any leading batch axes).

    Attributes:
        outward: (B, B) from the orbitals of the protons to the levels.
        homeward: (B, B) back.
        profiles: (S, A, B) what each of A gates multiplies each level with, for what arrives in each of S shells.
    """

    outward: jax.Array
    homeward: jax.Array
    profiles: jax.Array


def bumps(levels: jax.Array, number: int) -> jax.Array:
    """Smooth weights (L, B) of the levels that sum to one over the L bumps.

    Args:
        levels: (B,) energies relative to the chemical potential, in Fermi energies of free electrons.
        number: L.
    """
    place = jnp.tanh(levels)
    centres = jnp.asarray(np.linspace(-OUTERMOST, OUTERMOST, number), place.dtype)
    return jax.nn.softmax(-0.5 * ((place[None] - centres[:, None]) / WIDTH) ** 2, axis=0)


def gated_levels(
    values: Field, frame: jax.Array | None, gates: Field, mixing: jax.Array, levels: LevelGates, members: np.ndarray
) -> Field:
    """u_b(i) = chi_b(i) (1 + sum_a g_a(i) m_ab) + sum_a g_a(i) (chi(i) M_a)_b.

    M_a, between a proton's orbitals and those of shell s, is outward diag(profiles[s, a]) homeward.

    Args:
        values: (N, B) orbitals chi, ordered by proton; an array, or a Jet in the three coordinates of `own_frame`.
        frame: (3, N, T) of `own_frame`; None for arrays.
        gates: (N, A), an array or a Jet in all T coordinates.
        mixing: (A, B) m, of each orbital by itself.
        levels: M.
        members: (B/M,) shell of each orbital of a proton.

    Returns:
        (N, B): an array, or a ParticleJet with Y = 3 + A coordinates, those of the frame and the gates, what the frame
        sees of them taken out.
    """
    dtype = levels.outward.dtype
    if frame is None:
        spread = values.astype(dtype) @ levels.outward
        through = _home(lambda profile: spread * (gates @ profile).astype(dtype), levels, members)
        return (values * (1 + gates @ mixing)).astype(dtype) + through
    assert isinstance(values, Jet)
    along, _ = along_and_across(frame, gates)
    value, slopes, laplacian = (part.astype(dtype) @ levels.outward for part in jax.tree.leaves(values))

    def combined(profile: jax.Array) -> jax.Array:
        """Value, three slopes, Laplacian and the slopes in the gates (5 + A, N, B), in terms of the levels."""
        factor, tilt, curvature = (part @ profile for part in (gates.value, along, gates.laplacian))
        factor, tilt, curvature = (part.astype(dtype) for part in (factor, tilt, curvature))
        return jnp.concatenate(
            [
                (value * factor)[None],
                slopes * factor + value * tilt,
                (laplacian * factor + 2 * jnp.sum(slopes * tilt, axis=0) + value * curvature)[None],
                value * profile[:, None].astype(dtype),
            ]
        )

    through = _home(combined, levels, members)
    own = gated(values, frame, gates, mixing)
    return ParticleJet(
        own.value.astype(dtype) + through[0],
        own.slopes.astype(dtype) + jnp.concatenate([through[1:4], through[5:]]),
        own.directions,
        own.laplacian.astype(dtype) + through[4],
    )


def _home(combined, levels: LevelGates, members: np.ndarray) -> jax.Array:
    """Carry combined(profile of shell s) (..., B) of the levels to the orbitals of shell s, for every s: (..., B)."""
    protons = levels.homeward.shape[-1] // len(members)
    homeward = levels.homeward.reshape(-1, protons, len(members))
    parts = []
    for shell in range(int(members[-1]) + 1):
        columns = homeward[:, :, members == shell]
        found = combined(levels.profiles[shell]) @ columns.reshape(len(columns), -1)
        parts.append(found.reshape(*found.shape[:-1], protons, -1))
    joined = jnp.concatenate(parts, axis=-1)  # shells stand in order among the orbitals of a proton
    return joined.reshape(*joined.shape[:-2], -1)
