"""Sizes and choices of the wave function; saved with every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Spin = Literal["singlet", "triplet"]
"""Total spin of the wave function, 0 or 1, by that of its last pair; all others are singlets."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the shapes of the parameters; none depends on N.

    Attributes:
        s_exponents: exponents (1/bohr^2) of the s-like Gaussians on each proton.
        p_exponents: exponents (1/bohr^2) of the p-like Gaussians on each proton.
        radial_functions: functions of distance in every filter.
        features: width of electron features.
        vectors: vector channels of an electron (also of a proton).
        amplitudes: electron-dependent amplitudes of each orbital.
        level_bumps: parts of the spectrum of the Hamiltonian that the amplitudes tell apart; 0 for none.
        occupancies: hidden features of the electrons around a proton, on which its orbitals depend.
        message_rounds: electron message-passing rounds after the first density sums.
        proton_features: width of proton features; they are computed once per configuration, not per walker.
        proton_rounds: message-passing rounds of the protons.
        determinants: pairing terms summed.
        antisymmetric: pairing: correlated pairs of levels of a learned Hamiltonian; moments: levels with spins that
            alternate from proton to proton, for thin atomic cells; slater: its lowest levels, filled; plane_waves: the
            lowest plane waves, filled, at Gamma only. The last two are there for comparison.
        spin: of the last pair, at Gamma; at a twist all pairs are singlets.
    """

    s_exponents: tuple[float, ...] = (1.2, 0.4, 0.13)
    p_exponents: tuple[float, ...] = (0.4,)
    radial_functions: int = 8
    features: int = 32
    vectors: int = 8
    amplitudes: int = 8
    level_bumps: int = 5
    occupancies: int = 16
    message_rounds: int = 1
    proton_features: int = 32
    proton_rounds: int = 2
    determinants: int = 1
    antisymmetric: Literal["pairing", "moments", "slater", "plane_waves"] = "pairing"
    spin: Spin = "singlet"
