"""log psi of one walker in a context: electron network, orbitals, determinants, Jastrow factor and twist."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from fnqs.ansatz.density_waves import log_wave_factor
from fnqs.ansatz.geminal import Pairing, log_pairs, orbitals, pair_functions, sum_terms
from fnqs.ansatz.jastrow import PairFactor
from fnqs.ansatz.level_gates import gated_levels
from fnqs.ansatz.message_passing import ElectronNetwork, Linear, radial_rates
from fnqs.ansatz.orbital_basis import shells
from fnqs.ansatz.pair_features import distances, off_diagonal, pair_displacements, radial_functions
from fnqs.ansatz.plane_waves import wave_orbitals
from fnqs.ansatz.site_occupancy import OccupancyNetwork, occupied_pairs
from fnqs.ansatz.spinors import Spinors, log_spinors
from fnqs.context import Context
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
from fnqs.periodic.smooth_distance import smooth_pair


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
        around_protons = radial_functions(proton_distances, *normalisation)
        features, vectors = ElectronNetwork(config, name="electrons")(
            off_diagonal(radial_functions(electron_distances, *normalisation)),
            scale(electron_vectors, 1 / context.r_s),
            around_protons,
            scale(proton_vectors, 1 / context.r_s),
            context.filters,
            context.vector_filters,
            context.modulation,
        )

        coordinates = independent(electrons) if derivatives else electrons
        backflow_weights = Linear(config.vectors, gain=0.01, name="backflow")(features)
        positions = add(coordinates, scale(product("ic,ixc->ix", backflow_weights, vectors), context.r_s))
        if config.level_bumps:
            read = elementwise(nn.silu, Linear(config.features, name="amplitudes_hidden")(features))
            gates = Linear(config.amplitudes, gain=0.01, name="amplitudes")(concatenate([features, read]))
        else:
            gates = Linear(config.amplitudes, gain=0.01, name="amplitudes")(features)
        phase, log = self._determinants(context, positions, gates, around_protons, electrons.dtype)

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
        if not context.pairing.is_complex:
            return phase, add(log, symmetric)
        twist_phase = linear(lambda z: jnp.sum(z @ context.wave_vector), positions)
        return _twisted(phase, log, symmetric, twist_phase)

    def _determinants(
        self, context: Context, positions: Field, gates: Field, around_protons: Field, dtype: jnp.dtype
    ) -> tuple[jax.Array, Field]:
        """Phase and log of the sum of determinants, computed in float64.

        Args:
            context: of the configuration.
            positions: (N, 3) backflow positions, bohr.
            gates: (N, A) amplitudes that the electrons read out.
            around_protons: (N, N, K) radial functions between electrons and protons.
            dtype: of the result.
        """
        config = self.config
        # Orbitals overlap strongly, so the pairs are small differences of large terms, and the determinant is one of
        # the pairs: float64 from here on. Rounded backflow positions and gates are but a slightly different walker.
        local, gates = widen(positions), widen(gates)
        frame = None
        if isinstance(local, Jet):
            local, frame = own_frame(local)
        lattice, protons = widen((context.lattice, context.protons))
        if context.plane_waves is None:
            values = orbitals(lattice, protons, local, config)
        else:
            values = wave_orbitals(context.plane_waves, local)
        factors = None
        if context.neighbourhood is not None:
            factors = widen(OccupancyNetwork(config, name="occupancies")(around_protons, context.neighbourhood))
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
            pairing = jax.tree.map(lambda part, term=term: part[term], context.pairing)
            own = None if factors is None else linear(lambda x, term=term: x[term], factors)
            phase, log = narrow(self._determinant(mixed, own, pairing), dtype)
            phases.append(phase)
            logs.append(log)
        weights = self.param("log_weights", lambda _: -2.0 * jnp.arange(config.determinants, dtype=jnp.float32))
        return sum_terms(phases, logs, weights)

    def _determinant(self, values: Field, factors: Field | None, pairing: Pairing | Spinors) -> tuple[jax.Array, Field]:
        """Phase and log of one determinant, from orbitals (N, B) and the protons' factors (2, M, S)."""
        members = jnp.asarray(shells(self.config))
        if isinstance(pairing, Spinors):
            return log_spinors(values, factors, pairing, members)
        if factors is None:
            return log_pairs(partial(pair_functions, values), pairing)
        return log_pairs(partial(occupied_pairs, values, factors, members=members), pairing)


def _twisted(phase: jax.Array, log: Field, symmetric: Field, twist_phase: Field) -> tuple[jax.Array, Field]:
    """Multiply the determinants by the symmetric factor and by exp(i twist_phase)."""
    angle = twist_phase.value if isinstance(twist_phase, Jet) else twist_phase
    phase = phase * jnp.exp(1j * angle.astype(phase.dtype))
    if not isinstance(log, Jet):
        return phase, log + symmetric
    smooth = jax.tree.map(jax.lax.complex, symmetric, twist_phase)
    total = add(log, smooth)
    return phase, Jet(jnp.real(total.value), total.jacobian, total.laplacian)
