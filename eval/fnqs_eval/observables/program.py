"""One compiled pass over the walkers of a configuration: moves, then everything that is measured there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from fnqs.compilation import compiled
from fnqs.hamiltonian import map_walkers
from fnqs.observables.correlations import density_waves, pair_counts, voxel_counts
from fnqs.observables.coulomb import coulomb_derivatives
from fnqs.observables.derivatives import NODE_SHELL, kinetic_tensor, node_factor, zero_variance_term
from fnqs.observables.momentum import sampled_occupations
from fnqs.periodic.smooth_distance import wrapped
from fnqs.sampling.exchange import metropolis_with_exchange
from fnqs.spin import sampled_spin_squared
from fnqs.system import System
from fnqs.wavefunction import Context, WaveFunction

TOGETHER = 8
"""Measurements of every walker in one call."""


@cache
def make_pass(
    wavefunction: WaveFunction, chunk: int, sweeps: int, shape: tuple[int, int, int], correlations: bool
) -> Callable:
    """Compile measure(params, context, system, deformed, lists, walkers, width, key) for one configuration.

    Args:
        wavefunction: the model.
        chunk: walkers whose local energies are computed together.
        sweeps: moves between two measurements.
        shape: of the grid of the electron density.
        correlations: whether curves are wanted too.

    Returns:
        measure. Its `deformed` are contexts (D, 2), transforms (D, 2, 3, 3), steps (D,) and phases (D,) as of
        `reference_phases`; its `lists` are edges of distance (B + 1,), density waves (G, 3), momenta (K, 3). It returns
        walkers (n, N, 3), acceptance, series with axes (TOGETHER, n, ...) and sums over these with axes (n, ...);
        of the voxels, sums over the walkers as well.
    """

    def observe(params, context: Context, system: System, electrons: jax.Array) -> dict[str, jax.Array]:
        _, log = wavefunction.log_psi_jet(params, context, electrons)
        gradient = log.jacobian.reshape(electrons.shape)
        kinetic = -0.5 * (log.laplacian + jnp.sum(log.jacobian**2))
        coulomb = coulomb_derivatives(system.ewald, electrons)
        width = jnp.asarray(NODE_SHELL * context.r_s, electrons.dtype)
        mending = jnp.real(zero_variance_term(system.ewald, electrons, gradient))
        return {
            "log": jnp.real(log.value),
            "kinetic": jnp.real(kinetic),
            "kinetic_imaginary": jnp.imag(kinetic),
            "electron_electron": coulomb.electron_electron,
            "electron_proton": coulomb.electron_proton,
            "coulomb_strain": coulomb.strain,
            "slope": coulomb.protons + mending,
            "bare_slope": coulomb.protons,
            "kinetic_tensor": kinetic_tensor(gradient),
            "node_factor": node_factor(gradient, width),
        }

    def draws(params, context: Context, momenta: jax.Array, electrons: jax.Array, key: jax.Array):
        spin, momentum = jax.random.split(key)
        log_psi = partial(wavefunction.log_psi, params, context)
        cell = jnp.asarray(context.lattice.cell, electrons.dtype)
        return {
            "spin_squared": sampled_spin_squared(wavefunction, params, context, electrons, spin),
            "occupations": sampled_occupations(log_psi, cell, momenta, electrons, momentum),
        }

    def curves(system: System, edges, waves, electrons: jax.Array) -> dict[str, jax.Array]:
        half = electrons.shape[0] // 2
        up, down = (density_waves(waves, part) for part in (electrons[:half], electrons[half:]))
        return {
            "pairs": pair_counts(system.ewald, electrons, edges),
            "density_waves": up + down,
            "squares": jnp.stack([jnp.sum((up + down) ** 2, axis=0), jnp.sum((up - down) ** 2, axis=0)]),
        }

    def voxels(cell, electrons: jax.Array) -> jax.Array:
        """Count up and down electrons of walkers (n, N, 3) in voxels, (2, G)."""
        half = electrons.shape[1] // 2
        inverse = jnp.linalg.inv(cell)
        return jnp.stack(
            [voxel_counts(inverse, part.reshape(-1, 3), shape) for part in (electrons[:, :half], electrons[:, half:])]
        )

    @compiled
    def measure(params, context: Context, system: System, deformed, lists, walkers, width, key):
        alone = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (context, system))
        edges, waves, momenta, cell = (jnp.asarray(part, walkers.dtype) for part in lists)

        def one(carry, key):
            walkers, accepted = carry
            move, draw = jax.random.split(key)
            moved, acceptance = metropolis_with_exchange(
                wavefunction, params, alone[0], walkers[None], width[None], move, sweeps
            )
            walkers = wrapped(context.lattice, moved[0])
            own = map_walkers(
                lambda context, system, part: jax.vmap(partial(observe, params, context, system))(part),
                alone,
                walkers[None],
                chunk,
            )
            series: dict[str, Any] = {name: values[0] for name, values in own.items()}
            keys = jax.random.split(draw, len(walkers))
            drawn = jax.vmap(partial(draws, params, context, momenta))(walkers, keys)
            series["spin_squared"] = drawn["spin_squared"]
            if deformed is not None:
                series |= deformation_derivatives(wavefunction, params, deformed, walkers, series["log"])
            sums: dict[str, Any] = {}
            if correlations:
                sums = jax.vmap(partial(curves, system, edges, waves))(walkers)
                sums["occupations"] = drawn["occupations"]
                sums["voxels"] = voxels(cell, walkers)
            return (walkers, accepted + acceptance[0]), (series, sums)

        start = (walkers, jnp.zeros((), walkers.dtype))
        (walkers, accepted), (series, sums) = jax.lax.scan(one, start, jax.random.split(key, TOGETHER))
        return walkers, accepted / TOGETHER, series, jax.tree.map(lambda part: jnp.sum(part, axis=0), sums)

    return measure


def deformation_derivatives(
    wavefunction: WaveFunction, params: dict, deformed, walkers: jax.Array, here: jax.Array
) -> dict[str, jax.Array]:
    """Differentiate log psi by deformations, at walkers (n, N, 3) that are carried along with the cell.

    Args:
        wavefunction: the model.
        params: its parameters.
        deformed: contexts (D, 2), transforms (D, 2, 3, 3), steps (D,), phases (D,).
        walkers: (n, N, 3) bohr.
        here: (n,) log|psi| of the configuration itself.

    Returns:
        "log_slope" and "phase_slope" (n, D), and "log_bend" (n, D): what a smooth psi has little of, half the second
        difference over the step.
    """
    contexts, transforms, steps, phases = deformed

    def sides(own):
        pair, turns = own

        def side(context, turn):
            # r F with F near 1: the change is added, so that single precision keeps it
            moved = walkers + walkers @ (turn - jnp.eye(3, dtype=turn.dtype)).astype(walkers.dtype)
            return jax.vmap(partial(wavefunction.log_psi, params, context))(moved)

        first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], pair) for i in (0, 1))
        return side(first, turns[0]), side(second, turns[1])

    (up_phase, up), (down_phase, down) = jax.lax.map(sides, (contexts, jnp.asarray(transforms)))
    step = jnp.asarray(steps, here.dtype)[:, None]
    ratio = up_phase * jnp.conj(down_phase)
    turned = jnp.zeros_like(up)
    if jnp.iscomplexobj(ratio):
        back = jnp.asarray(phases, here.dtype)[:, None]
        turned = jnp.angle(ratio * jax.lax.complex(jnp.cos(back), -jnp.sin(back)).astype(ratio.dtype))
    return {
        "log_slope": ((up - down) / (2 * step)).T,
        "phase_slope": (turned / (2 * step)).astype(here.dtype).T,
        "log_bend": ((up + down - 2 * here) / (2 * step)).T,
    }


@cache
def make_reference_phases(wavefunction: WaveFunction) -> Callable:
    """Compile phases(params, contexts, transforms, steps, walkers): (D,), how the phase of psi turns between each pair.

    A phase that is the same for all walkers is a matter of convention and falls out of every mean; taken off, the
    rest is small and has no jumps.
    """

    @compiled
    def phases(params, contexts, transforms, steps, walkers):
        none = jnp.zeros(len(steps), walkers.dtype)
        zero = jnp.zeros(len(walkers), walkers.dtype)
        found = deformation_derivatives(wavefunction, params, (contexts, transforms, steps, none), walkers, zero)
        turned = 2 * found["phase_slope"] * jnp.asarray(steps, walkers.dtype)
        return jnp.arctan2(jnp.mean(jnp.sin(turned), axis=0), jnp.mean(jnp.cos(turned), axis=0))

    return phases
