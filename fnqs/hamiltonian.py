"""The local energy: kinetic energy by the forward Laplacian plus the Ewald energy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from fnqs.ewald import ewald_energy
from fnqs.system import System
from fnqs.wavefunction import Context, WaveFunction


def kinetic_energy(
    wavefunction: WaveFunction, params: dict, context: Context, electrons: Float[Array, "n 3"]
) -> Inexact[Array, ""]:
    """-(laplacian log psi + (grad log psi)^2)/2 in Ha of one walker (N, 3); complex where psi is."""
    _, log = wavefunction.log_psi_jet(params, context, electrons)
    return -0.5 * (log.laplacian + jnp.sum(log.jacobian**2))


def local_energy(
    wavefunction: WaveFunction, params: dict, context: Context, system: System, electrons: Float[Array, "n 3"]
) -> Inexact[Array, ""]:
    """Local energy of the whole cell in Ha for one walker (N, 3); complex where psi is."""
    kinetic = kinetic_energy(wavefunction, params, context, electrons)
    potential = ewald_energy(system.ewald, electrons)
    return kinetic + potential.astype(kinetic.dtype)


def local_energies(
    wavefunction: WaveFunction,
    params: dict,
    contexts: Context,
    systems: System,
    walkers: Float[Array, "k w n 3"],
    chunk: int,
) -> Inexact[Array, "k w"]:
    """Local energies of walkers of several configurations, at most `chunk` walkers at a time.

    Args:
        wavefunction: the model.
        params: its parameters.
        contexts: of K configurations, stacked.
        systems: the same K, stacked.
        walkers: (K, n, N, 3) bohr.
        chunk: upper limit of walkers evaluated together; bounds the memory.

    Returns:
        (K, n) Ha per cell.
    """

    def energies(context: Context, system: System, electrons: jax.Array) -> jax.Array:
        return jax.vmap(lambda r: local_energy(wavefunction, params, context, system, r))(electrons)

    return map_walkers(energies, (contexts, systems), walkers, chunk)


def map_walkers(function, per_configuration, walkers: jax.Array, chunk: int):
    """Apply function(per_configuration[k], walkers[k, part]) to all walkers, at most `chunk` of them at a time.

    Args:
        function: called with the leaves of one configuration and (c, N, 3) walkers; returns a tree of (c, ...).
        per_configuration: tuple of trees with leading axis K.
        walkers: (K, n, N, 3).
        chunk: upper limit of walkers together. Where a configuration has fewer, several are taken together,
            and where it has more, its walkers are cut into parts; either way in equal numbers.

    Returns:
        A tree of (K, n, ...).
    """
    configurations, n_walkers = walkers.shape[:2]
    size = _largest_divisor(n_walkers, chunk)
    members = _largest_divisor(configurations, chunk // n_walkers) if size == n_walkers else 1
    groups = configurations // members
    parts = walkers.reshape(groups, members, n_walkers // size, size, *walkers.shape[2:])
    parts = jnp.moveaxis(parts, 2, 1).reshape(-1, members, size, *walkers.shape[2:])
    owners = jnp.repeat(jnp.arange(configurations).reshape(groups, members), n_walkers // size, axis=0)

    def one(argument):
        owner, electrons = argument
        own = jax.tree.map(lambda leaf: jnp.asarray(leaf)[owner], per_configuration)
        return jax.vmap(function)(*own, electrons)

    results = jax.lax.map(one, (owners, parts))
    return jax.tree.map(lambda x: x.reshape(configurations, n_walkers, *x.shape[3:]), results)


def _largest_divisor(number: int, limit: int) -> int:
    """Largest divisor of a number that is not above the limit (at least 1)."""
    return max(c for c in range(1, max(1, min(limit, number)) + 1) if number % c == 0)
