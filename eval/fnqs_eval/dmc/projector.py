"""Compiled blocks of time steps: a trained wave function as the guide of diffusion Monte Carlo."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp

from fnqs.compilation import compiled
from fnqs.ewald import ewald_energy
from fnqs.hamiltonian import map_walkers
from fnqs.periodic.smooth_distance import wrapped
from fnqs.sampling.diffusion import Guide, Moved, Projection, diffuse
from fnqs.system import System
from fnqs.wavefunction import Context, WaveFunction

BLOCK = 50
"""Time steps between two looks at the error bar."""


def make_guide(
    wavefunction: WaveFunction, params: dict, context: Context, system: System, chunk: int
) -> Callable[[jax.Array], Guide]:
    """Make the function that gives psi, its drift and its local energy at walkers (n, N, 3) of one configuration.

    Where psi is complex the drift is that of |psi| and the energy the real part of the local one: fixed phase.

    Args:
        wavefunction: the model.
        params: its parameters.
        context: of the configuration.
        system: the configuration itself.
        chunk: upper limit of walkers together; bounds the memory, changes no result.
    """

    def one(context: Context, system: System, electrons: jax.Array) -> Guide:
        phase, log = wavefunction.log_psi_jet(params, context, electrons)
        kinetic = jnp.real(-0.5 * (log.laplacian + jnp.sum(log.jacobian**2)))
        energy = kinetic.astype(jnp.float64) + ewald_energy(system.ewald, electrons).astype(jnp.float64)
        return Guide(phase, log.value, jnp.real(log.jacobian).reshape(electrons.shape), energy)

    alone = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (context, system))

    def guide_of(walkers: jax.Array) -> Guide:
        guides = map_walkers(jax.vmap(one, (None, None, 0)), alone, walkers[None], chunk)
        return jax.tree.map(lambda leaf: leaf[0], guides)

    return guide_of


@cache
def make_block(wavefunction: WaveFunction, chunk: int, steps: int = BLOCK) -> Callable:
    """Compile block(params, context, system, walkers, trial_energy, key, time_step).

    The context and the system are those of one configuration, walkers (n, N, 3) in bohr, trial_energy a float64 in Ha,
    time_step a Python float in 1/Ha. Walkers come back into the cell at the start of a block; one at which psi or its
    energy is not finite is replaced there by one that is valid.

    Returns:
        walkers (n, N, 3), a Moved with leaves (steps,), and the number of walkers that were replaced.
    """

    @compiled
    def block(params, context, system, walkers, trial_energy, key, time_step) -> tuple[jax.Array, Moved, jax.Array]:
        guide_of = make_guide(wavefunction, params, context, system, chunk)
        walkers = wrapped(context.lattice, walkers)
        guide = guide_of(walkers)
        drifts = jnp.all(jnp.isfinite(guide.drift), axis=(1, 2))
        valid = jnp.isfinite(guide.energy) & jnp.isfinite(guide.log) & drifts
        source = jnp.where(valid, jnp.arange(len(walkers)), jnp.argmax(valid))
        walkers, guide = jax.tree.map(lambda leaf: leaf[source], (walkers, guide))
        step = partial(_step, guide_of, time_step)
        state, moved = jax.lax.scan(step, Projection(walkers, guide, trial_energy), jax.random.split(key, steps))
        return state.walkers, moved, jnp.sum(~valid)

    return block


def _step(guide_of: Callable, time_step, state: Projection, key: jax.Array) -> tuple[Projection, Moved]:
    return diffuse(guide_of, state, key, time_step)
