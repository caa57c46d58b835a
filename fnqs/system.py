"""A System: a configuration with the constants that the Hamiltonian and the wave function need."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np

from fnqs.ansatz.density_waves import WaveLists, make_waves
from fnqs.ansatz.orbital_basis import OrbitalBasis, make_orbital_basis
from fnqs.ansatz.plane_waves import PlaneWaves, make_plane_waves
from fnqs.configuration import Configuration
from fnqs.errors import InputError
from fnqs.ewald import EwaldLists, make_ewald
from fnqs.model_config import ModelConfig
from fnqs.periodic.smooth_distance import SmoothLattice, smooth_lattice

Tree = TypeVar("Tree")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class System:
    """One configuration prepared on the host in float64; systems of one N can be stacked.

    Attributes:
        configuration: cell, protons and twist.
        basis: overlaps and starting Hamiltonian of the proton-centred orbitals.
        ewald: lists and constants of the Coulomb energy.
        lattice: smooth distances in the cell.
        waves: of the Jastrow factor.
        plane_waves: that are filled, where they are the orbitals of the model.
    """

    configuration: Configuration
    basis: OrbitalBasis
    ewald: EwaldLists
    lattice: SmoothLattice
    waves: WaveLists
    plane_waves: PlaneWaves | None = None


def make_system(configuration: Configuration, config: ModelConfig, *, force_complex: bool = False) -> System:
    """Prepare one configuration; with `force_complex` the wave function is complex even at Gamma.

    Raises:
        InputError: a twist, for a model of plane waves or for a triplet; a triplet of filled levels.
    """
    check_spin(configuration, config)
    basis = make_orbital_basis(configuration, config)
    lattice = smooth_lattice(np.asarray(configuration.cell))
    if force_complex and not np.iscomplexobj(basis.hamiltonian):
        basis = dataclasses.replace(basis, hamiltonian=basis.hamiltonian.astype(np.complex128))
    ewald = make_ewald(configuration)
    waves = make_waves(configuration, ewald.cell)
    if config.antisymmetric != "plane_waves":
        return System(configuration, basis, ewald, lattice, waves)
    if np.iscomplexobj(basis.hamiltonian):
        twist = tuple(np.asarray(configuration.twist).tolist())
        raise InputError(f'twist {twist}: a model with antisymmetric = "plane_waves" takes no twist but (0, 0, 0)')
    return System(configuration, basis, ewald, lattice, waves, make_plane_waves(configuration, ewald.cell))


def check_spin(configuration: Configuration, config: ModelConfig) -> None:
    """Check that a model can have its spin in a configuration.

    Raises:
        InputError: a triplet at a twist, or of filled levels.
    """
    if config.spin == "singlet":
        return
    twist = tuple(np.asarray(configuration.twist).tolist())
    if config.antisymmetric != "pairing":
        raise InputError(f'spin = "triplet": a model with antisymmetric = "{config.antisymmetric}" has total spin 0')
    if any(twist):
        raise InputError(f'twist {twist}: spin = "triplet" is offered at twist (0, 0, 0) only')


def stack_systems(systems: Sequence[Tree]) -> Tree:
    """Stack systems of one N, or any equal trees of arrays, along a new leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *systems)
