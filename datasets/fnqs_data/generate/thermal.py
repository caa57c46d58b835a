"""How far protons and molecules of a crystal stray at a temperature: Einstein oscillators with zero-point motion."""

from __future__ import annotations

import numpy as np
from ase import units

from fnqs_data.generate.disordered import PROTON_MASS, screening_rate

# I. F. Silvera and V. V. Goldman, J. Chem. Phys. 69, 4209 (1978), atomic units; the three-body average C9 included.
_ALPHA, _BETA, _GAMMA = 1.713, 1.5671, 0.00993
_C6, _C8, _C9, _C10 = 12.14, 215.2, 143.1, 4813.9
_DAMPED_BELOW = 8.321


def rms_displacement(frequency: float, mass: float, temperature: float) -> float:
    """Root mean square displacement (bohr, all three directions together) of a quantum oscillator.

    <u^2> = 3 / (2 m w) coth(w / 2 k T) (L. D. Landau and E. M. Lifshitz, Statistical Physics, part 1, section 30).

    Args:
        frequency: w, Ha.
        mass: m, electron masses.
        temperature: T, K; zero gives the zero-point motion.
    """
    thermal = 2 * temperature * units.kB / units.Hartree
    cotangent = 1 / np.tanh(frequency / thermal) if thermal > 0 else 1.0
    return float(np.sqrt(1.5 / (mass * frequency) * cotangent))


def proton_frequency(r_s: float) -> float:
    """Einstein frequency (Ha) of a proton in an atomic crystal at r_s (bohr).

    The others repel it by exp(-k r) / r with the Thomas-Fermi k of `disordered`, and are spread evenly outside the
    sphere of radius r_s: w^2 = (1 + k r_s) exp(-k r_s) / (m r_s^3). Without screening this is the exact w_p^2 / 3 of
    a cubic Coulomb crystal (E. L. Pollock and J. P. Hansen, Phys. Rev. A 8, 3110 (1973)).
    """
    screened = float(screening_rate(np.array(r_s))) * r_s
    return float(np.sqrt((1 + screened) * np.exp(-screened) / (PROTON_MASS * r_s**3)))


def molecule_frequency(r_s: float) -> float:
    """Einstein frequency (Ha) of a molecule's centre in a molecular crystal at r_s (bohr).

    The twelve neighbours of a close-packed lattice act by the potential of Silvera and Goldman:
    w^2 = 12 / (3 M) (V'' + 2 V' / R), R the neighbour distance, M = 2 m. Beyond r_s = 3.1, where solid hydrogen
    is no longer compressed, the curvature is taken there.
    """
    distance = (np.sqrt(2) * 2 * 4 * np.pi / 3) ** (1 / 3) * min(r_s, 3.1)
    step = 1e-3
    low, middle, high = (silvera_goldman(distance + shift) for shift in (-step, 0.0, step))
    curvature = (high - 2 * middle + low) / step**2 + 2 * (high - low) / (2 * step) / distance
    return float(np.sqrt(2 * curvature / PROTON_MASS))


def silvera_goldman(distance: np.ndarray | float) -> np.ndarray | float:
    """Potential (Ha) of two H2 molecules, averaged over orientations, at the distance (bohr) of their centres.

    Source: I. F. Silvera and V. V. Goldman, J. Chem. Phys. 69, 4209 (1978), with the effective C9 term.
    """
    tail = _C6 / distance**6 + _C8 / distance**8 - _C9 / distance**9 + _C10 / distance**10
    damping = np.exp(-(np.maximum(_DAMPED_BELOW / distance - 1, 0.0) ** 2))
    return np.exp(_ALPHA - _BETA * distance - _GAMMA * distance**2) - damping * tail
