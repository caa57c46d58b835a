"""Disordered configurations by Metropolis sampling of a simple, documented proton-proton interaction.

Protons that are not bonded repel by the Thomas-Fermi screened Coulomb energy exp(-k r) / r with
k^2 = 4 k_F / pi (Ashcroft and Mermin, chapter 17); bonded pairs have the Morse curve of the free molecule
(Huber and Herzberg, Constants of Diatomic Molecules (1979): D_e, omega_e, r_e of H2). This is no accurate
potential of dense hydrogen: it makes a wide, smooth spread of plausible configurations. Two molecules at 2.8 to
4 bohr, averaged over orientations, repel as in the potential of Silvera and Goldman within a factor of 1.6 at
r_s = 1.4 to 1.6; at r_s = 2.7 up to five times as much, so thin molecular liquids are too well ordered.

A trajectory starts from random places, cools, and gives its frames many sweeps apart; other trajectories share
nothing with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import units

DISORDERED = ("liquid-atomic", "liquid-molecular", "liquid-mixed")

MORSE_DEPTH = 38297.0 * units.invcm / units.Hartree
MORSE_DISTANCE = 0.74144 / units.Bohr
_FREQUENCY = 4401.21 * units.invcm / units.Hartree
PROTON_MASS = 1.00727646688 * units._amu / units._me
"""In electron masses (CODATA, Huber and Herzberg's isotope)."""

MORSE_RATE = _FREQUENCY * np.sqrt(PROTON_MASS / 2 / (2 * MORSE_DEPTH))

WALL = 5.0
"""Stiffness (Ha/bohr^2) of the wall that keeps protons apart by a little more than the closest distance."""

LONGEST_BOND = 2.2
"""Bonds never grow beyond this (bohr), so that molecules survive the hot start."""

SWEEPS = 100
"""Metropolis sweeps from random places; the first half cools."""

HOT_START = 30.0
"""Temperature of the first sweep in units of the wanted one."""

BETWEEN_FRAMES = 80
"""Sweeps from one frame of a trajectory to the next."""

MOLECULE_STEP = 0.12
"""Step of a molecule's centre in r_s, and of its axis in radians times five."""

ONE_IMAGE = 54
"""In cells of this many protons only the nearest image of each counts: half the cell away, the screened
interaction is below 3e-3 Ha."""

_CORNERS = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)


@dataclass(frozen=True)
class Liquid:
    """Many disordered configurations of one N that are sampled side by side.

    Attributes:
        cells: (B, 3, 3) bohr; angles near 60 or 90 degrees.
        temperatures: (B,) K.
        partners: (B, N) index of the bonded proton, or -1.
        closest: smallest allowed proton distance, bohr.
    """

    cells: np.ndarray
    temperatures: np.ndarray
    partners: np.ndarray
    closest: float


def screening_rate(r_s: np.ndarray) -> np.ndarray:
    """Thomas-Fermi screening (1/bohr) of an electron gas with r_s in bohr."""
    fermi = (9 * np.pi / 4) ** (1 / 3) / r_s
    return np.sqrt(4 * fermi / np.pi)


def trajectories(
    liquid: Liquid,
    rng: np.random.Generator,
    frames: int,
    sweeps: int = SWEEPS,
    between: int = BETWEEN_FRAMES,
) -> np.ndarray:
    """Protons (frames, B, N, 3) in bohr of B Metropolis trajectories from random places.

    The first half of the sweeps cools from 30 times the temperature; step sizes adapt there and then stay, and
    from then on whole molecules move and turn too.

    Args:
        liquid: the B configurations.
        rng: source of all random numbers.
        frames: how many of each trajectory.
        sweeps: before the first frame.
        between: from one frame to the next.
    """
    cells, n_atoms = liquid.cells, liquid.partners.shape[1]
    r_s = (3 * np.abs(np.linalg.det(cells)) / (4 * np.pi * n_atoms)) ** (1 / 3)
    surroundings = Surroundings(liquid, np.linalg.inv(cells), screening_rate(r_s))
    protons = _random_places(cells, liquid.partners, rng)
    steps = 0.3 * r_s
    thermal = liquid.temperatures * units.kB / units.Hartree
    for sweep in range(sweeps):
        heat = thermal * max(1.0, HOT_START ** (1 - 2 * sweep / sweeps))
        accepted = _move_protons(protons, steps, heat, surroundings, rng)
        if 2 * sweep < sweeps:
            steps = np.clip(steps * np.where(accepted > 0.4 * n_atoms, 1.15, 0.87), 0.02, r_s)
        else:
            _move_molecules(protons, MOLECULE_STEP * r_s, heat, surroundings, rng)
    result = [protons.copy()]
    for _ in range(frames - 1):
        for _ in range(between):
            _move_protons(protons, steps, thermal, surroundings, rng)
            _move_molecules(protons, MOLECULE_STEP * r_s, thermal, surroundings, rng)
        result.append(protons.copy())
    return np.stack(result)


def _move_protons(
    protons: np.ndarray, steps: np.ndarray, heat: np.ndarray, surroundings: Surroundings, rng: np.random.Generator
) -> np.ndarray:
    """Try to move every proton in turn, in place; return how many moves (B,) were accepted."""
    batch, n_atoms = protons.shape[:2]
    accepted = np.zeros(batch)
    for i in range(n_atoms):
        old = protons[:, i]
        new = old + steps[:, None] * rng.normal(size=(batch, 3))
        before = surroundings.proton_energy(old, i, protons)
        after = surroundings.proton_energy(new, i, protons)
        take = rng.random(batch) < np.exp(np.minimum(0.0, (before - after) / heat))
        protons[:, i] = np.where(take[:, None], new, old)
        accepted += take
    return accepted


def _move_molecules(
    protons: np.ndarray, steps: np.ndarray, heat: np.ndarray, surroundings: Surroundings, rng: np.random.Generator
) -> None:
    """Try to shift and turn every molecule in turn, in place; its bond length stays."""
    batch, n_atoms = protons.shape[:2]
    for i in range(0, n_atoms - 1, 2):
        bonded = surroundings.liquid.partners[:, i] == i + 1
        if not bonded.any():
            continue
        old = protons[:, i : i + 2]
        half = (old[:, 1] - old[:, 0]) / 2
        length = np.linalg.norm(half, axis=1, keepdims=True)
        turned = half / length + 5 * MOLECULE_STEP * rng.normal(size=(batch, 3))
        half = length * turned / np.linalg.norm(turned, axis=1, keepdims=True)
        centre = old.mean(axis=1) + steps[:, None] * rng.normal(size=(batch, 3))
        new = np.stack([centre - half, centre + half], axis=1)
        before = surroundings.molecule_energy(old, i, protons)
        after = surroundings.molecule_energy(new, i, protons)
        take = bonded & (rng.random(batch) < np.exp(np.minimum(0.0, (before - after) / heat)))
        protons[:, i : i + 2] = np.where(take[:, None, None], new, old)


def _random_places(cells: np.ndarray, partners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random protons (B, N, 3) in bohr; bonded ones at the free bond length from each other."""
    batch, n_atoms = partners.shape
    protons = np.einsum("bni,bij->bnj", rng.random((batch, n_atoms, 3)), cells)
    axes = rng.normal(size=(batch, n_atoms, 3))
    axes *= MORSE_DISTANCE / np.linalg.norm(axes, axis=-1, keepdims=True)
    first = np.take_along_axis(protons, np.maximum(partners, 0)[..., None], axis=1)
    second = (partners >= 0) & (partners < np.arange(n_atoms))
    return np.where(second[..., None], first + axes, protons)


@dataclass(frozen=True)
class Surroundings:
    """What one proton or molecule feels: the liquid, its inverse cells (B, 3, 3) and screening rates (B,)."""

    liquid: Liquid
    inverse: np.ndarray
    rate: np.ndarray

    def proton_energy(self, place: np.ndarray, i: int, protons: np.ndarray) -> np.ndarray:
        """Energy (B,) in Ha of proton i at places (B, 3) among all others."""
        liquid = self.liquid
        energy = self._repelled(place, np.delete(protons, i, axis=1))
        partner = liquid.partners[:, i]
        bonded = partner >= 0
        if bonded.any():
            other = protons[np.arange(len(protons)), np.maximum(partner, 0)]
            bond = np.linalg.norm(place - other, axis=-1) + 1e-9
            morse = MORSE_DEPTH * (1 - np.exp(-MORSE_RATE * (bond - MORSE_DISTANCE))) ** 2
            wall = WALL * np.maximum(0.0, 1.05 * liquid.closest - bond) ** 2
            pair = np.where(bond < LONGEST_BOND, morse + wall - _repulsion(bond, self.rate, liquid.closest), np.inf)
            energy += np.where(bonded, pair, 0.0)
        return energy

    def molecule_energy(self, places: np.ndarray, i: int, protons: np.ndarray) -> np.ndarray:
        """Energy (B,) in Ha of protons i and i + 1 at places (B, 2, 3), without that of their bond."""
        others = np.delete(protons, (i, i + 1), axis=1)
        bond = np.linalg.norm(places[:, 1] - places[:, 0], axis=1)
        energy = self._repelled(places[:, 0], others) + self._repelled(places[:, 1], others)
        return energy + self._repelled(places[:, 0], places[:, 1:]) - _repulsion(bond, self.rate, self.liquid.closest)

    def _repelled(self, place: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Energy (B,) in Ha of a proton at places (B, 3) with others (B, M, 3) and their nearest images."""
        fractional = (place[:, None] - others) @ self.inverse
        rate, closest = self.rate[:, None], self.liquid.closest
        if self.liquid.partners.shape[1] >= ONE_IMAGE:
            images = (fractional - np.round(fractional)) @ self.liquid.cells
            distance = np.sqrt(np.einsum("bjx,bjx->bj", images, images)) + 1e-9
            return np.sum(_repulsion(distance, rate, closest), axis=1)
        fractional -= np.floor(fractional)
        images = (fractional @ self.liquid.cells)[:, :, None] - (_CORNERS @ self.liquid.cells)[:, None]
        distance = np.sqrt(np.einsum("bjcx,bjcx->bjc", images, images)) + 1e-9
        return np.sum(_repulsion(distance, rate[:, :, None], closest), axis=(1, 2))


def _repulsion(distance: np.ndarray, rate: np.ndarray, closest: float) -> np.ndarray:
    """Screened Coulomb energy (Ha) with a soft wall at the closest distance."""
    return np.exp(-rate * distance) / distance + WALL * np.maximum(0.0, 1.1 * closest - distance) ** 2
