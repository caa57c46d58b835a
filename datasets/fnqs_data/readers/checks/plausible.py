"""What no file of dense hydrogen says: the marks of wrong units and of damaged numbers.

The bounds are wide, and on purpose: they refuse what is impossible for protons and electrons, not what is
unusual. A file in bohr that is read as Å stays within them unless it states its own r_s, which is then compared.
"""

from __future__ import annotations

import numpy as np
from ase import units

from fnqs.errors import InputError
from fnqs.periodic.cell import minimum_image_distances
from fnqs_data.readers.checks.energy_bounds import highest_energy
from fnqs_data.readers.notes import Notes
from fnqs_data.store.record import Record

MOST_PROTONS = 1024
"""Protons of one configuration; the check of all distances grows as N squared, to 4 s and 0.3 GB at this N."""

RADII = (0.3, 30.0)
"""r_s in bohr: from far beyond any experiment to a molecule in a box of 60 bohr."""

SPARSE, FARTHEST_NEIGHBOUR = 5.0, 10.0
"""bohr; above this r_s, configurations are molecules in a box, and some two protons are nearer than the second."""

FARTHEST_CELL = 1000.0
"""Cells that a proton of an unwrapped trajectory may lie away; farther, float64 loses what we need."""

LARGEST_FORCE = 100.0
"""Ha/bohr; two bare protons at the shortest accepted distance, 0.3 bohr, repel with 11."""

STATED_RADIUS_TOLERANCE = 1e-3
"""Relative; files state r_s with three decimals or more."""


def check_geometry(cell: np.ndarray, protons: np.ndarray) -> None:
    """Refuse numbers that the checks of a configuration could not digest; NaN and flat cells are left to them.

    Args:
        cell: (3, 3) lattice vectors as rows, bohr.
        protons: (N, 3) Cartesian positions, bohr.

    Raises:
        InputError: too many protons, an impossible r_s, or positions far outside the cell.
    """
    if len(protons) > MOST_PROTONS:
        raise InputError(f"it holds {len(protons)} protons, more than the {MOST_PROTONS} that are read; cut it down")
    if not (len(protons) and np.all(np.isfinite(cell)) and np.all(np.isfinite(protons))):
        return
    with np.errstate(all="ignore"):
        r_s = (3 * abs(np.linalg.det(cell)) / (4 * np.pi * len(protons))) ** (1 / 3)
        if 0 < r_s < RADII[0] or not r_s <= RADII[1]:
            raise InputError(f"r_s = {r_s:.4g} bohr is not between {RADII[0]} and {RADII[1]:g}; are the lengths in Å?")
        try:
            farthest = np.abs(protons @ np.linalg.inv(cell)).max()
        except np.linalg.LinAlgError:
            return
    # Written so that NaN counts as far away.
    if not farthest < FARTHEST_CELL:
        raise InputError(
            f"a proton lies {farthest:.3g} cells away, farther than {FARTHEST_CELL:g}; is the file damaged?"
        )


def find_implausible(
    record: Record, stated_r_s: float | None = None, *, twist_known: bool = False, notes: Notes | None = None
) -> str | None:
    """Say in one clause what cannot be true of a record's labels, with the likely cause, or None.

    Args:
        record: as read, in Ha and bohr.
        stated_r_s: r_s that the file itself gives, bohr.
        twist_known: whether the file states the twist of the record.
        notes: what is told of an energy that only an unusual twist could have.
    """
    r_s = record.wigner_seitz_radius
    if stated_r_s is not None and not abs(r_s - stated_r_s) < STATED_RADIUS_TOLERANCE * r_s:
        return (
            f"its cell and N give r_s = {r_s:.4f} bohr but it states r_s = {stated_r_s:.4f}; "
            "are the lengths in Å, or is the file damaged?"
        )
    if r_s > SPARSE:
        nearest = minimum_image_distances(
            np.asarray(record.configuration.cell), np.asarray(record.configuration.protons)
        ).min()
        if nearest > FARTHEST_NEIGHBOUR:
            return f"its nearest protons are {nearest:.3g} bohr apart, at r_s = {r_s:.3g} bohr; are the lengths in Å?"
    low, high = energy_bounds(r_s, record.n_atoms)
    energy = record.energy_per_atom
    if energy is not None and not low <= energy <= high:
        return (
            f"its energy, {energy:.6g} Ha per proton, cannot be that of hydrogen at r_s = {r_s:.3f} bohr "
            f"({low:.2f} to {high:.2f}); is it in eV, of the whole cell, and counted from separated particles?"
        )
    if energy is not None and (fault := _find_high_energy(record, energy, twist_known, notes)):
        return fault
    if record.stress is not None and not np.abs(record.stress).max() <= largest_stress(r_s):
        return (
            f"its stress reaches {np.abs(record.stress).max() * units.Hartree / units.Bohr**3 / units.GPa:.3g} GPa, "
            f"impossible at r_s = {r_s:.3f} bohr; is it in eV/Å^3?"
        )
    if record.forces is not None and not np.abs(record.forces).max() <= LARGEST_FORCE:
        return f"its forces reach {np.abs(record.forces).max():.3g} Ha/bohr; are they in eV/Å?"
    if record.energy_error is not None and record.energy_error < 0:
        return f"its energy error, {record.energy_error:.3g} Ha, is negative; correct or remove the label"
    if record.temperature is not None and record.temperature < 0:
        return f"its temperature, {record.temperature:g} K, is negative; correct or remove the label"
    return None


def _find_high_energy(record: Record, energy: float, twist_known: bool, notes: Notes | None) -> str | None:
    """Say that an energy lies higher than that of any hydrogen; where only some twist could do it, leave a note."""
    r_s = record.wigner_seitz_radius
    # No bound lies lower than this, and nearly every true energy does.
    if energy <= 1.105 / r_s**2 - 1.354 / r_s - 0.05:
        return None
    configuration = record.configuration
    usual, highest = highest_energy(
        np.asarray(configuration.cell),
        np.asarray(configuration.protons),
        np.asarray(configuration.twist) if twist_known else None,
        record.temperature or 0.0,
    )
    cause = "is it in eV, of the whole cell, and counted from separated particles?"
    if energy > highest:
        return (
            f"its energy, {energy:.6g} Ha per proton, is too high for hydrogen at r_s = {r_s:.3f} bohr "
            f"({highest:.2f} at most); {cause}"
        )
    if energy > usual and notes is not None:
        notes.remark(f"an energy is so high that only one twist of so small a cell could have it; {cause}")
    return None


def largest_stress(r_s: float) -> float:
    """Largest believable component of the stress, Ha/bohr^3: five times that of free electrons at r_s (bohr).

    A stress in GPa that is taken for eV/Å^3 is 160 times too large, one in kbar 1600 times.
    """
    return 5 * 2.21 / (4 * np.pi * r_s**5) + 0.01


def energy_bounds(r_s: float, n_atoms: int) -> tuple[float, float]:
    """Lowest and highest believable total energy, Ha per proton.

    Around the energy of the uniform metal, 1.105/r_s^2 - 1.354/r_s (kinetic; exchange and Madelung), lie
    0.2 Ha for all that it leaves out and 6/N Ha for shell effects of a single twist. Below it, the molecule
    (-0.587 Ha) must fit too. The upper bound is infinite below r_s = 1, where the kinetic energy rules.

    Args:
        r_s: r_s, bohr.
        n_atoms: N.
    """
    metal = 1.105 / r_s**2 - 1.354 / r_s
    high = metal + 0.2 + 6 / n_atoms if r_s >= 1 else np.inf
    return min(metal, -0.6) - 0.2 - 6 / n_atoms, high
