"""What a configuration contributes to log_psi, computed once for all its walkers."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from fnqs.ansatz.density_waves import WaveFactor
from fnqs.ansatz.geminal import Pairing
from fnqs.ansatz.level_gates import LevelGates
from fnqs.ansatz.plane_waves import PlaneWaves
from fnqs.ansatz.site_occupancy import Neighbourhood
from fnqs.ansatz.spinors import Spinors
from fnqs.periodic.smooth_distance import SmoothLattice


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Context:
    """What a configuration contributes to log_psi, in the precision of the parameters.

    Attributes:
        lattice: smooth distances in the cell.
        protons: (N, 3), bohr.
        wave_vector: (3,) the twist as the shortest wave vector, 1/bohr.
        r_s: () Wigner-Seitz radius, bohr.
        radial_mean, radial_size: (K,) normalisation of the radial functions.
        pair_mean: (K',) mean of the radial functions of the pair factor.
        electron_pairs: (2, K') coefficients of the pair factor, equal and opposite spins.
        proton_pairs: (N, K') coefficients of the pair factor, of every proton.
        waves: coefficients of the density waves of the Jastrow factor.
        filters: (N, K, F) filters of every proton.
        vector_filters: (N, K, C) the same for vector channels.
        modulation: (1 + message_rounds, F) factors of the electrons' features.
        neighbourhood: of the protons, for the factors of their orbitals; None where the orbitals are plane waves.
        amplitudes: (D, A, B) how the electrons' amplitudes act on each orbital.
        level_gates: how the same amplitudes act on the levels of H, for each determinant; None where they do not.
        pairing: the pairs, or levels with spins, of D determinants in double precision, complex at a general twist.
        plane_waves: the orbitals, B = N/2, where they are not those of the protons.
    """

    lattice: SmoothLattice
    protons: jax.Array
    wave_vector: jax.Array
    r_s: jax.Array
    radial_mean: jax.Array
    radial_size: jax.Array
    pair_mean: jax.Array
    electron_pairs: jax.Array
    proton_pairs: jax.Array
    waves: WaveFactor
    filters: jax.Array
    vector_filters: jax.Array
    modulation: jax.Array
    neighbourhood: Neighbourhood | None
    amplitudes: jax.Array
    level_gates: LevelGates | None
    pairing: Pairing | Spinors
    plane_waves: PlaneWaves | None
