"""The wave function: encode(params, system) once per configuration, then log_psi(params, context, electrons).

psi = exp(i k . sum_i z_i) exp(J) sum_d det[phi_d(i up, j down)]: a cusp factor and a many-body factor J, pair
determinants of orbitals at backflow positions z, and the phase of the twist. One set of weights serves every N.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from fnqs.ansatz.density_waves import EXPONENTS, WaveFactor, log_wave_factor, wave_factor
from fnqs.ansatz.geminal import (
    Pairing,
    log_pairs,
    orbitals,
    pair_functions,
    pairing_matrix,
    slater_pairs,
    sum_terms,
)
from fnqs.ansatz.jastrow import PAIR_RATES, PairFactor, whitened_pairs
from fnqs.ansatz.level_gates import LevelGates, bumps, gated_levels
from fnqs.ansatz.message_passing import ElectronNetwork, Linear, ProtonNetwork, radial_rates
from fnqs.ansatz.open_shell import FREE_ELECTRON_FERMI_ENERGY
from fnqs.ansatz.orbital_basis import OrbitalBasis, orbitals_per_proton, shells
from fnqs.ansatz.pair_features import (
    distances,
    off_diagonal,
    pair_displacements,
    radial_functions,
    radial_moments,
)
from fnqs.ansatz.plane_waves import PlaneWaves, WaveAmplitudes, wave_orbitals
from fnqs.ansatz.site_occupancy import Neighbourhood, OccupancyNetwork, occupied_pairs
from fnqs.laplacian.jet import (
    Field,
    Jet,
    add,
    concatenate,
    elementwise,
    independent,
    linear,
    narrow,
    product,
    scale,
    widen,
)
from fnqs.laplacian.particle_jet import gated, own_frame
from fnqs.model_config import ModelConfig
from fnqs.periodic.smooth_distance import SmoothLattice, smooth_pair
from fnqs.precision import require_float64
from fnqs.system import System

COLD = 1e4
"""Inverse temperature of a Slater determinant, in Fermi energies of free electrons: far below any gap it may meet."""

START_SHARPNESS = 8.0
"""Inverse temperature of the pairs that an untrained model starts with, in the same unit."""

SHARPNESS_RANGE = 8.0
"""Factor by which training may raise or lower it. Without a limit it grows until the occupations jump where levels
cross, with derivatives by the levels' energies that end the optimisation; gaps below E_F / 64 are none."""

START_VIRTUAL = 0.1
"""Amplitude of the pairs in empty levels that an untrained model starts with."""

START_LAST_PAIR = 0.3
"""Amplitude of the last pair that an untrained model starts with, where closed shells have a 1."""

LEAST_LAST_PAIR = 1e-4
"""The smallest that training may make it: the difference of determinants that it enters must not be rounded away."""

RATIO_RANGE = 4.0
"""Factor by which training may raise or lower the weight of the last pair beside closed shells."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Context:
    """What a configuration contributes to log_psi, in the precision of the parameters.

    Attributes:
        lattice: smooth distances in the cell.
        protons: (N, 3), bohr.
        wave_vector: (3,) the twist as the shortest wave vector, 1/bohr.
        density: () r_s, bohr.
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
        pairing: the pairs of D determinants in double precision, complex at a general twist.
        plane_waves: the orbitals, B = N/2, where they are not those of the protons.
    """

    lattice: SmoothLattice
    protons: jax.Array
    wave_vector: jax.Array
    density: jax.Array
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
    pairing: Pairing
    plane_waves: PlaneWaves | None


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
        density = jnp.cbrt(3 * jnp.abs(jnp.linalg.det(cell)) / (4 * jnp.pi * number))
        length = density.astype(dtype)
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
            amplitudes = WaveAmplitudes(config, name="plane_waves")(plane_waves, average, density)
            unit = jnp.eye(number // 2, dtype=density.dtype)
            pairing = Pairing(jnp.broadcast_to(unit, (config.determinants, *unit.shape)))
        else:
            amplitudes, pairing = self._levels(head, average, system, density)
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
            density=length,
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
        self, head: Callable[..., jax.Array], average: jax.Array, system: System, density: jax.Array
    ) -> tuple[jax.Array, Pairing]:
        """Amplitudes (D, A, B) and the pairs of D determinants of the proton-centred orbitals.

        Args:
            head: linear function of the protons' features.
            average: (F,) the mean of those features.
            system: the configuration with its orbital basis.
            density: () r_s, bohr, float64.
        """
        config = self.config
        number, kinds, terms = system.configuration.protons.shape[0], orbitals_per_proton(config), config.determinants
        shell = shells(config)  # the components of a p shell share their numbers: no direction is preferred
        amplitudes = head("amplitude_head", terms, config.amplitudes, shell[-1] + 1, gain=1.0)[..., shell]
        amplitudes = jnp.moveaxis(amplitudes, 0, 2).reshape(terms, config.amplitudes, number * kinds)
        onsite = head("onsite_head", terms, shell[-1] + 1)[..., shell]
        onsite = jnp.moveaxis(onsite, 0, 1).reshape(terms, number * kinds)
        fermi_energy = FREE_ELECTRON_FERMI_ENERGY / density**2
        if config.antisymmetric == "slater" and not jnp.iscomplexobj(system.basis.hamiltonian):
            cold = jnp.full(terms, COLD) / fermi_energy
            return amplitudes, jax.vmap(partial(slater_pairs, system.basis))(onsite.astype(density.dtype), cold)
        if config.antisymmetric == "slater":
            inverse_temperature = jnp.full(terms, COLD) / fermi_energy
            virtual, last_pair = jnp.zeros(terms), jnp.ones((terms, 2))
        else:
            sharpness = sharpness_of(Linear(terms, name="sharpness_head", gain=0.1)(average).astype(density.dtype))
            inverse_temperature = sharpness / fermi_energy
            # Bounded by the weight of the closed shells, which must not be left for empty levels.
            virtual = Linear(terms, name="virtual_head", gain=0.1)(average)
            virtual = nn.sigmoid(virtual + math.log(START_VIRTUAL / (1 - START_VIRTUAL)))
            last_pair = Linear(2 * terms, name="last_pair_head", gain=0.0)(average).reshape(terms, 2)
            last_pair = last_pair_of(last_pair)
        pairing = jax.vmap(partial(pairing_matrix, system.basis, pairs=number // 2))(
            onsite.astype(density.dtype),
            inverse_temperature,
            virtual.astype(density.dtype),
            last_pair.astype(density.dtype),
        )
        return amplitudes, pairing


def sharpness_of(numbers: jax.Array) -> jax.Array:
    """Inverse temperatures in Fermi energies, from what the network gives: START_SHARPNESS exp(x), bounded smoothly."""
    bound = math.log(SHARPNESS_RANGE)
    return START_SHARPNESS * jnp.exp(bound * jnp.tanh(numbers / bound))


def last_pair_of(numbers: jax.Array) -> jax.Array:
    """Size and weight (D, 2) of the last pair, from what the network gives.

    A second pair of its kind has the wrong symmetry, so the best size is small; as an exponential of a number it
    becomes so without large derivatives. The weight is around 1, bounded smoothly.
    """
    size = nn.sigmoid(numbers[:, 0] + math.log(START_LAST_PAIR / (1 - START_LAST_PAIR)))
    size = LEAST_LAST_PAIR + (1 - LEAST_LAST_PAIR) * size
    bound = math.log(RATIO_RANGE)
    return jnp.stack([size, jnp.exp(bound * jnp.tanh(numbers[:, 1] / bound))], axis=1)


class LogPsi(nn.Module):
    """log psi of one walker in a context."""

    config: ModelConfig

    @nn.compact
    def __call__(self, context: Context, electrons: jax.Array, derivatives: bool = False) -> tuple[jax.Array, Field]:
        """Evaluate one walker.

        Args:
            context: of the configuration.
            electrons: (N, 3) bohr, spin up first.
            derivatives: whether the logarithm is a Jet in the 3N coordinates.

        Returns:
            The phase of psi (a sign where psi is real) and log|psi|; the Jet of a complex psi has the
            derivatives of the complex log psi.
        """
        config = self.config
        rates = jnp.asarray(radial_rates(config), electrons.dtype)
        normalisation = (rates, context.radial_mean, context.radial_size)
        electron_pairs = pair_displacements(electrons, electrons, derivatives)
        proton_pairs = pair_displacements(electrons, context.protons, derivatives)
        electron_square, electron_vectors = smooth_pair(context.lattice, electron_pairs)
        proton_square, proton_vectors = smooth_pair(context.lattice, proton_pairs)
        electron_distances = distances(electron_square, same=True)
        proton_distances = distances(proton_square, same=False)
        features, vectors = ElectronNetwork(config, name="electrons")(
            off_diagonal(radial_functions(electron_distances, *normalisation)),
            scale(electron_vectors, 1 / context.density),
            radial_functions(proton_distances, *normalisation),
            scale(proton_vectors, 1 / context.density),
            context.filters,
            context.vector_filters,
            context.modulation,
        )

        coordinates = independent(electrons) if derivatives else electrons
        backflow_weights = Linear(config.vectors, gain=0.01, name="backflow")(features)
        positions = add(coordinates, scale(product("ic,ixc->ix", backflow_weights, vectors), context.density))
        if config.level_bumps:
            read = elementwise(nn.silu, Linear(config.features, name="amplitudes_hidden")(features))
            gates = Linear(config.amplitudes, gain=0.01, name="amplitudes")(concatenate([features, read]))
        else:
            gates = Linear(config.amplitudes, gain=0.01, name="amplitudes")(features)
        # Orbitals overlap strongly, so the pairs are small differences of large terms, and the determinant is one of
        # the pairs: float64 from here on. Rounded backflow positions and gates are but a slightly different walker.
        local, gates = widen(positions), widen(gates)
        frame = None
        if derivatives:
            local, frame = own_frame(local)
        lattice, protons = widen((context.lattice, context.protons))
        if context.plane_waves is None:
            values = orbitals(lattice, protons, local, config)
        else:
            values = wave_orbitals(context.plane_waves, local)
        factors = None
        if context.neighbourhood is not None:
            counted = radial_functions(proton_distances, *normalisation)
            factors = widen(OccupancyNetwork(config, name="occupancies")(counted, context.neighbourhood))
        phases, logs = [], []
        for term in range(config.determinants):
            mixing = widen(context.amplitudes[term])
            if context.level_gates is not None:
                through = jax.tree.map(lambda part, term=term: part[term], context.level_gates)
                mixed = gated_levels(values, frame, gates, mixing, through, shells(config))
            elif frame is None:
                mixed = values * (1 + gates @ mixing)
            else:
                mixed = gated(values, frame, gates, mixing)
            if factors is None:
                pairs = partial(pair_functions, mixed)
            else:
                own = linear(lambda x, term=term: x[term], factors)
                pairs = partial(occupied_pairs, mixed, own, members=jnp.asarray(shells(config)))
            pairing = jax.tree.map(lambda part, term=term: part[term], context.pairing)
            phase, log = narrow(log_pairs(pairs, pairing), electrons.dtype)
            phases.append(phase)
            logs.append(log)
        weights = self.param("log_weights", lambda _: -2.0 * jnp.arange(config.determinants, dtype=jnp.float32))
        phase, log = sum_terms(phases, logs, weights)

        hidden = elementwise(nn.silu, Linear(config.features, name="jastrow_hidden")(features))
        many_body = linear(jnp.sum, Linear(1, bias=False, gain=0.01, name="jastrow")(hidden))
        two_bodies = PairFactor(name="pairs")(
            electron_distances,
            proton_distances,
            context.pair_mean,
            context.electron_pairs,
            context.proton_pairs,
        )
        symmetric = add(two_bodies, many_body, log_wave_factor(context.waves, electrons, derivatives))
        if not jnp.iscomplexobj(context.pairing.closed):
            return phase, add(log, symmetric)
        twist_phase = linear(lambda z: jnp.sum(z @ context.wave_vector), positions)
        return _twisted(phase, log, symmetric, twist_phase)


def _twisted(phase: jax.Array, log: Field, symmetric: Field, twist_phase: Field) -> tuple[jax.Array, Field]:
    """Multiply the determinants by the symmetric factor and by exp(i twist_phase)."""
    angle = twist_phase.value if isinstance(twist_phase, Jet) else twist_phase
    phase = phase * jnp.exp(1j * angle.astype(phase.dtype))
    if not isinstance(log, Jet):
        return phase, log + symmetric
    smooth = jax.tree.map(jax.lax.complex, symmetric, twist_phase)
    total = add(log, smooth)
    return phase, Jet(jnp.real(total.value), total.jacobian, total.laplacian)


@dataclass(frozen=True)
class WaveFunction:
    """The two halves of the model and their parameters {"encoder": ..., "amplitude": ...}."""

    config: ModelConfig

    def init(self, key: jax.Array, system: System) -> dict:
        """Draw parameters; their shapes do not depend on the system given as an example."""
        first, second = jax.random.split(key)
        context, encoder = Encoder(self.config).init_with_output(first, system)
        electrons = context.protons + 0.1
        amplitude = LogPsi(self.config).init(second, context, electrons)
        return {"encoder": encoder["params"], "amplitude": amplitude["params"]}

    def encode(self, params: dict, system: System) -> Context:
        """Context of one system (vmap for a stack).

        Raises:
            InputError: float64 is off, which would cost digits without a word.
        """
        require_float64()
        return cast(Context, Encoder(self.config).apply({"params": params["encoder"]}, system))

    def log_psi(self, params: dict, context: Context, electrons: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Phase and log|psi| of one walker (N, 3)."""
        result = LogPsi(self.config).apply({"params": params["amplitude"]}, context, electrons)
        return cast(tuple[jax.Array, jax.Array], result)

    def log_psi_jet(self, params: dict, context: Context, electrons: jax.Array) -> tuple[jax.Array, Jet]:
        """Phase and log|psi| of one walker with the gradient and Laplacian of log psi."""
        result = LogPsi(self.config).apply({"params": params["amplitude"]}, context, electrons, True)
        return cast(tuple[jax.Array, Jet], result)
