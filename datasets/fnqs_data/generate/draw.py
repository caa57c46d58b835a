"""Draw configurations of one family: structure, density, disorder, strain, orientation and twist."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from fnqs.configuration import SHORTEST_BOND, Configuration, find_cell_fault, fold_twist
from fnqs.errors import InputError
from fnqs_data.generate.crystals import ATOMIC_CRYSTALS, lattice
from fnqs_data.generate.disordered import DISORDERED, PROTON_MASS, Liquid, trajectories
from fnqs_data.generate.molecular import MOLECULAR_CRYSTALS, bond_length, molecular_lattice, place_molecules
from fnqs_data.generate.recipe import Family, Range
from fnqs_data.generate.thermal import molecule_frequency, proton_frequency, rms_displacement

MOST_ATTEMPTS = 50
"""Rounds of drawing what is still missing before a family is declared impossible."""

LARGEST_LIBRATION = 0.5
"""Largest rms angle (radians) by which ordered molecules are tilted."""

SPHERE = 4 * np.pi / 3
"""Volume of the unit sphere: the volume per proton at r_s = 1."""

LIQUID_CELLS = (np.eye(3), np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2 ** (1 / 3))
"""Shapes of unit volume for disordered phases: a cube and the rhombohedron of 60 degrees."""


@dataclass(frozen=True)
class Drawn:
    """A configuration before it has a name.

    Attributes:
        configuration: in bohr.
        temperature: K, or None where the family has none.
        run: number of the trajectory that it is a frame of, counted inside one call; None for a single draw.
    """

    configuration: Configuration
    temperature: float | None
    run: int | None


def draw_configurations(family: Family, n_atoms: int, count: int, rng: np.random.Generator) -> list[Drawn]:
    """Draw `count` configurations of N protons that pass every check.

    Raises:
        InputError: if the family makes (almost) no acceptable configuration.
    """
    result: list[Drawn] = []
    fault, runs = "", 0
    for _ in range(MOST_ATTEMPTS):
        raw = _raw(family, n_atoms, count - len(result), rng)
        distances = closest_pairs(np.stack([cell for cell, *_ in raw]), np.stack([protons for _, protons, *_ in raw]))
        for (cell, protons, temperature, run), distance in zip(raw, distances, strict=True):
            if distance < max(family.closest, SHORTEST_BOND):
                fault = f"two protons are {distance:.3f} bohr apart"
                continue
            configuration = _finish(family, cell, protons, rng)
            if problem := find_cell_fault(np.asarray(configuration.cell)):
                fault = problem
                continue
            result.append(Drawn(configuration, temperature, None if run is None else runs + run))
        if len(result) >= count:
            return result[:count]
        runs += count
    raise InputError(
        f"family {family.phase} with N = {n_atoms} gave {len(result)} of {count} configurations in "
        f"{MOST_ATTEMPTS} attempts, the last failing because {fault}; "
        "raise the start of its r_s range or lower its displacement"
    )


def closest_pairs(cells: np.ndarray, protons: np.ndarray) -> np.ndarray:
    """Return the shortest proton distance, own images included, of many configurations of one N.

    Args:
        cells: (B, 3, 3) bohr.
        protons: (B, N, 3) bohr.

    Returns:
        (B,) bohr.
    """
    n_atoms = protons.shape[1]
    fractional = (protons[:, :, None] - protons[:, None]) @ np.linalg.inv(cells)[:, None]
    fractional -= np.round(fractional)
    nearest = fractional @ cells[:, None]
    smallest = _smallest_square(nearest, n_atoms)
    # Every other image lies at least half the thinnest slab of the cell away: only some small cells need them.
    heights = 1 / np.linalg.norm(np.linalg.inv(cells), axis=1).max(axis=1)
    unsure = np.flatnonzero(smallest > (heights / 2) ** 2)
    shifts = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    for shift in shifts[np.any(shifts != 0, axis=1)]:
        vectors = nearest[unsure] + (shift @ cells[unsure])[:, None, None]
        smallest[unsure] = np.minimum(smallest[unsure], np.einsum("bijx,bijx->bij", vectors, vectors).min(axis=(1, 2)))
    return np.sqrt(smallest)


def _smallest_square(vectors: np.ndarray, n_atoms: int) -> np.ndarray:
    """Smallest squared length (B,) of vectors (B, N, N, 3) between different protons."""
    square = np.einsum("bijx,bijx->bij", vectors, vectors)
    square[:, np.arange(n_atoms), np.arange(n_atoms)] = np.inf
    return square.min(axis=(1, 2))


def _raw(family: Family, n_atoms: int, count: int, rng: np.random.Generator):
    """Cells, protons, temperatures and trajectories before the global rotation and the checks."""
    if family.phase in DISORDERED:
        return _liquids(family, n_atoms, count, rng)
    if family.phase in ATOMIC_CRYSTALS:
        draw = _atomic_crystal
    elif family.phase in MOLECULAR_CRYSTALS:
        draw = _molecular_crystal
    else:
        draw = {"molecule": _molecule, "chain": _chain}[family.phase]
    return [(*draw(family, n_atoms, rng), None) for _ in range(count)]


def _finish(family: Family, cell: np.ndarray, protons: np.ndarray, rng: np.random.Generator) -> Configuration:
    """Turn the configuration if wanted and give it its twist."""
    if family.rotate:
        turn = random_rotation(rng)
        cell, protons = cell @ turn.T, protons @ turn.T
    if isinstance(family.twist, str):
        twist = 0.5 - rng.random(3) if family.twist == "random" else np.zeros(3)
    else:
        twist = np.array([uniform(fraction, rng) for fraction in family.twist])
    return Configuration(cell=cell, protons=protons, twist=fold_twist(twist))


def _atomic_crystal(family: Family, n_atoms: int, rng: np.random.Generator):
    r_s = uniform(family.r_s, rng)
    temperature, displacement = _displacement(family, proton_frequency(r_s), PROTON_MASS, r_s, rng)
    shapes = lattice(family.phase, n_atoms, family.supercell)
    cell, sites = shapes[_which(family, len(shapes), rng)]
    scale = r_s * SPHERE ** (1 / 3)
    deformation = random_strain(family.strain, rng)
    cell, sites = scale * cell @ deformation, scale * sites @ deformation
    return cell, sites + rng.normal(scale=displacement / np.sqrt(3), size=sites.shape), temperature


def _molecular_crystal(family: Family, n_atoms: int, rng: np.random.Generator):
    """Move centres; ends of ordered molecules librate by as much as their centres move."""
    r_s = uniform(family.r_s, rng)
    temperature, displacement = _displacement(family, molecule_frequency(r_s), 2 * PROTON_MASS, r_s, rng)
    shapes = molecular_lattice(family.phase, n_atoms, family.supercell)
    cell, centres, axes = shapes[_which(family, len(shapes), rng)]
    scale = r_s * (2 * SPHERE) ** (1 / 3)
    deformation = random_strain(family.strain, rng)
    cell, centres = scale * cell @ deformation, scale * centres @ deformation
    centres = centres + rng.normal(scale=displacement / np.sqrt(3), size=centres.shape)
    bond = uniform(family.bond, rng) if family.bond is not None else bond_length(r_s)
    bonds = bond + family.bond_spread * rng.normal(size=len(centres))
    libration = min(2 * displacement / bond, LARGEST_LIBRATION)
    return cell, place_molecules(centres, axes, bonds, libration, rng), temperature


def _displacement(
    family: Family, frequency: float, mass: float, r_s: float, rng: np.random.Generator
) -> tuple[float | None, float]:
    """Temperature (K), if the family has one, and rms displacement (bohr) of what oscillates in a crystal."""
    if family.temperature is None:
        return None, uniform(family.displacement, rng) * r_s
    temperature = uniform(family.temperature, rng)
    return temperature, rms_displacement(frequency, mass, temperature)


def _liquids(family: Family, n_atoms: int, count: int, rng: np.random.Generator):
    """Sample many trajectories at once; the frames of each follow one another."""
    runs = -(-count // family.frames)
    radii = np.array([uniform(family.r_s, rng) for _ in range(runs)])
    temperatures = np.array([uniform(family.temperature, rng) for _ in range(runs)])
    cells = np.stack(
        [
            LIQUID_CELLS[rng.integers(len(LIQUID_CELLS))]
            * r_s
            * (n_atoms * SPHERE) ** (1 / 3)
            @ random_strain(family.strain, rng)
            for r_s in radii
        ]
    )
    partners = np.stack([_partners(family.phase, n_atoms, rng) for _ in range(runs)])
    frames = trajectories(Liquid(cells, temperatures, partners, family.closest), rng, family.frames)
    return [(cells[run], protons[run], float(temperatures[run]), run) for run in range(runs) for protons in frames]


def _partners(phase: str, n_atoms: int, rng: np.random.Generator) -> np.ndarray:
    """Bonded partner (N,) of every proton, -1 for none; a mixed liquid has some of both."""
    partners = np.full(n_atoms, -1)
    pairs = {"liquid-atomic": 0, "liquid-molecular": n_atoms // 2}.get(phase)
    if pairs is None:
        if n_atoms < 4:
            raise InputError("liquid-mixed needs N = 4 or more, a molecule and two atoms")
        pairs = int(rng.integers(1, n_atoms // 2))
    for pair in range(pairs):
        partners[2 * pair], partners[2 * pair + 1] = 2 * pair + 1, 2 * pair
    return partners


def _molecule(family: Family, n_atoms: int, rng: np.random.Generator):
    """H2 along x in the middle of a cube."""
    assert family.box is not None
    middle = np.full(3, family.box / 2)
    half = np.array([uniform(family.bond, rng) / 2, 0.0, 0.0])
    return family.box * np.eye(3), np.stack([middle - half, middle + half]), None


def _chain(family: Family, n_atoms: int, rng: np.random.Generator):
    """Equidistant protons along x; an open chain has the vacuum beyond its ends too."""
    assert family.vacuum is not None
    spacing = uniform(family.spacing, rng)
    length = spacing * (n_atoms - 1) + family.vacuum if family.open else spacing * n_atoms
    places = spacing * (np.arange(n_atoms) - (n_atoms - 1) / 2) + length / 2
    across = np.full(n_atoms, family.vacuum / 2)
    return np.diag([length, family.vacuum, family.vacuum]), np.stack([places, across, across], axis=1), None


def _which(family: Family, shapes: int, rng: np.random.Generator) -> int:
    """Choose a random supercell shape, or the most compact one if the family is a single perfect crystal."""
    return int(rng.integers(shapes)) if family.count > 1 else 0


def uniform(value: Range | None, rng: np.random.Generator) -> float:
    """Draw from a range; a fixed value is returned as it is."""
    assert value is not None
    if isinstance(value, tuple):
        return float(rng.uniform(value[0], value[1]))
    return float(value)


def random_strain(size: float, rng: np.random.Generator) -> np.ndarray:
    """Symmetric (3, 3) deformation of determinant 1; its logarithm's diagonal varies by about `size`."""
    if size == 0:
        return np.eye(3)
    matrix = rng.normal(scale=size, size=(3, 3))
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.exp(values - values.mean())) @ vectors.T


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Uniformly distributed rotation matrix (3, 3)."""
    return Rotation.from_quat(rng.normal(size=4)).as_matrix()
