"""From a configuration to its context: the proton network and the heads that read it out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from fnqs.ansatz.density_waves import EXPONENTS, wave_factor
from fnqs.ansatz.geminal import Pairing, pairing_matrix, slater_pairs
from fnqs.ansatz.jastrow import PAIR_RATES, whitened_pairs
from fnqs.ansatz.level_gates import LevelGates, bumps
from fnqs.ansatz.message_passing import Linear, ProtonNetwork, radial_rates
from fnqs.ansatz.open_shell import FREE_ELECTRON_FERMI_ENERGY
from fnqs.ansatz.orbital_basis import OrbitalBasis, orbitals_per_proton, shells
from fnqs.ansatz.pair_features import distances, off_diagonal, pair_displacements, radial_functions, radial_moments
from fnqs.ansatz.pair_numbers import COLD, START_VIRTUAL, last_pair_of, moments_of, sharpness_of
from fnqs.ansatz.plane_waves import WaveAmplitudes
from fnqs.ansatz.site_occupancy import Neighbourhood
from fnqs.ansatz.spinors import Spinors, spinor_levels
from fnqs.context import Context
from fnqs.laplacian.jet import widen
from fnqs.model_config import ModelConfig
from fnqs.periodic.smooth_distance import smooth_pair
from fnqs.system import System


class Encoder(nn.Module):
    """From a system to its context; runs once per configuration."""

    config: ModelConfig

    @nn.compact
    def __call__(self, system: System) -> Context:
        """Encode one system."""
        config = self.config
        # The first parameter fixes the precision of everything that follows.
        base = self.param(
            "filters", nn.initializers.normal(0.3), (config.radial_functions, config.features), jnp.float32
        )
        dtype = base.dtype
        cell = jnp.asarray(system.configuration.cell)
        protons = jnp.asarray(system.configuration.protons).astype(dtype)
        lattice = system.lattice.astype(dtype)
        number = protons.shape[0]
        r_s = jnp.cbrt(3 * jnp.abs(jnp.linalg.det(cell)) / (4 * jnp.pi * number))
        length = r_s.astype(dtype)
        rates = jnp.asarray(radial_rates(config), dtype)
        mean, size = radial_moments(lattice, rates, number)
        pair = pair_displacements(protons, protons, derivatives=False)
        square, vectors = smooth_pair(lattice, pair)
        radial = off_diagonal(radial_functions(distances(square, same=True), rates, mean, size))
        features = ProtonNetwork(config, name="protons")(radial, vectors / length, length)

        def head(name: str, *shape: int, gain: float = 0.1) -> jax.Array:
            return Linear(math.prod(int(extent) for extent in shape), gain=gain, name=name)(features).reshape(
                number, *shape
            )

        average = jnp.mean(features, axis=0)
        filters = base[None] + head("filter_head", config.radial_functions, config.features)
        vector_filters = head("vector_filter_head", config.radial_functions, config.vectors, gain=0.3)
        layers = 1 + config.message_rounds
        modulation = Linear(layers * config.features, name="modulation_head", gain=0.0)(average)
        pair_mean, whitening = whitened_pairs(lattice, number)
        proton_pairs = head("proton_pair_head", len(PAIR_RATES), gain=0.0) @ whitening.T
        electron_pairs = Linear(2 * len(PAIR_RATES), name="electron_pair_head", gain=0.0)(average)
        electron_pairs = electron_pairs.reshape(2, -1) @ whitening.T
        waves = wave_factor(
            system.waves,
            protons,
            head("proton_wave_head", len(EXPONENTS), gain=0.0),
            Linear(2 * len(EXPONENTS), name="electron_wave_head", gain=0.0)(average).reshape(2, -1),
        )
        plane_waves, neighbourhood, level_gates = system.plane_waves, None, None
        if plane_waves is not None:
            amplitudes = WaveAmplitudes(config, name="plane_waves")(plane_waves, average, r_s)
            unit = jnp.eye(number // 2, dtype=r_s.dtype)
            pairing = Pairing(jnp.broadcast_to(unit, (config.determinants, *unit.shape)))
        else:
            amplitudes, pairing = self._levels(head, average, system, r_s)
            if config.level_bumps:
                level_gates = self._level_gates(average, system.basis)
            neighbourhood = Neighbourhood(
                bias=head("occupancy_head", config.occupancies),
                filters=Linear(config.occupancies, bias=False, name="occupancy_filters")(radial),
            )
        return Context(
            lattice=lattice,
            protons=protons,
            wave_vector=jnp.asarray(system.basis.wave_vector).astype(dtype),
            r_s=length,
            radial_mean=mean,
            radial_size=size,
            pair_mean=pair_mean,
            electron_pairs=electron_pairs,
            proton_pairs=proton_pairs,
            waves=waves,
            filters=filters,
            vector_filters=vector_filters,
            neighbourhood=neighbourhood,
            modulation=1 + modulation.reshape(layers, config.features),
            amplitudes=amplitudes,
            level_gates=level_gates,
            pairing=pairing,
            plane_waves=plane_waves,
        )

    def _level_gates(self, average: jax.Array, basis: OrbitalBasis) -> LevelGates:
        """Read out of the mean of the protons' features what the amplitudes do to the levels, in float64.

        Args:
            average: (F,).
            basis: of the configuration.
        """
        config = self.config
        kinds = int(shells(config)[-1]) + 1
        shape = (config.determinants, kinds, config.amplitudes, config.level_bumps)
        weights = Linear(math.prod(shape), name="level_head")(average).reshape(shape)
        weights = weights + self.param("level_profiles", nn.initializers.normal(1.0), shape, jnp.float32)
        vectors = jnp.asarray(basis.vectors)
        levels = jnp.asarray(basis.levels)
        profiles = widen(weights) @ bumps(levels, config.level_bumps)
        outward = jnp.asarray(basis.inverse).T.astype(vectors.dtype) @ vectors
        homeward = vectors.conj().T @ jnp.asarray(basis.root).T.astype(vectors.dtype)
        every = (config.determinants, *outward.shape)
        return LevelGates(jnp.broadcast_to(outward, every), jnp.broadcast_to(homeward, every), profiles)

    def _levels(
        self, head: Callable[..., jax.Array], average: jax.Array, system: System, r_s: jax.Array
    ) -> tuple[jax.Array, Pairing | Spinors]:
        """Amplitudes (D, A, B) and the pairs of D determinants of the proton-centred orbitals.

        Args:
            head: linear function of the protons' features.
            average: (F,) the mean of those features.
            system: the configuration with its orbital basis.
            r_s: () Wigner-Seitz radius, bohr, float64.
        """
        config = self.config
        number, kinds, terms = system.configuration.protons.shape[0], orbitals_per_proton(config), config.determinants
        shell = shells(config)  # the components of a p shell share their numbers: no direction is preferred
        amplitudes = head("amplitude_head", terms, config.amplitudes, shell[-1] + 1, gain=1.0)[..., shell]
        amplitudes = jnp.moveaxis(amplitudes, 0, 2).reshape(terms, config.amplitudes, number * kinds)
        onsite = head("onsite_head", terms, shell[-1] + 1)[..., shell]
        onsite = jnp.moveaxis(onsite, 0, 1).reshape(terms, number * kinds)
        fermi_energy = FREE_ELECTRON_FERMI_ENERGY / r_s**2
        if config.antisymmetric == "moments":
            fields = Linear(terms * int(shell[-1] + 1), name="moments_head", gain=0.0)(average).astype(r_s.dtype)
            fields = jnp.tile(moments_of(fields).reshape(terms, -1)[:, shell], (1, number)) * fermi_energy
            cold = jnp.full(terms, COLD) / fermi_energy
            fill = partial(spinor_levels, system.basis, pairs=number // 2)
            return amplitudes, jax.vmap(fill)(onsite.astype(r_s.dtype), fields, cold)
        if config.antisymmetric == "slater" and not jnp.iscomplexobj(system.basis.hamiltonian):
            cold = jnp.full(terms, COLD) / fermi_energy
            return amplitudes, jax.vmap(partial(slater_pairs, system.basis))(onsite.astype(r_s.dtype), cold)
        if config.antisymmetric == "slater":
            inverse_temperature = jnp.full(terms, COLD) / fermi_energy
            virtual, last_pair = jnp.zeros(terms), jnp.ones((terms, 2))
        else:
            sharpness = sharpness_of(Linear(terms, name="sharpness_head", gain=0.1)(average).astype(r_s.dtype))
            inverse_temperature = sharpness / fermi_energy
            # Bounded by the weight of the closed shells, which must not be left for empty levels.
            virtual = Linear(terms, name="virtual_head", gain=0.1)(average)
            virtual = nn.sigmoid(virtual + math.log(START_VIRTUAL / (1 - START_VIRTUAL)))
            last_pair = Linear(2 * terms, name="last_pair_head", gain=0.0)(average).reshape(terms, 2)
            last_pair = last_pair_of(last_pair)
        pairing = jax.vmap(partial(pairing_matrix, system.basis, pairs=number // 2))(
            onsite.astype(r_s.dtype),
            inverse_temperature,
            virtual.astype(r_s.dtype),
            last_pair.astype(r_s.dtype),
        )
        return amplitudes, pairing
