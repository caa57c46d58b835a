"""Diffusion Monte Carlo: walkers with weights that project the lowest state with the nodes (or the phase) of psi.

In imaginary time the distribution f = psi Phi obeys a diffusion with drift v = grad log|psi| and a growth by
-(E_L - E_T). A time step tau moves all electrons of a walker, accepts the move by detailed balance with |psi|^2, and
multiplies the walker's weight (Reynolds, Ceperley, Alder and Lester, J. Chem. Phys. 77, 5593 (1982)). Where psi is real
a move across a node is refused: fixed nodes, an upper bound. Where it is complex the phase is fixed (Ortiz, Ceperley
and Martin, Phys. Rev. Lett. 71, 2777 (1993)): the real part of E_L is the local energy that belongs to it.

The number of walkers is constant, so all shapes are: after every step walkers are drawn again in proportion to their
weights, and the mean weight that this takes away is kept. Energies carry the product of the last mean weights
(Calandra Buonaura and Sorella, Phys. Rev. B 57, 11446 (1998)), without which a constant population has a bias of 1/n.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

CUTOFF = 0.2
"""Largest |E_L - E_T| that a weight sees, in sqrt(N / tau) Ha: it grows as the spread of E_L does, so energies of two
systems far apart add up (Zen, Sorella, Gillan, Michaelides and Alfe, Phys. Rev. B 93, 241118 (2016))."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Guide:
    """What psi says at the positions of n walkers of N electrons.

    Attributes:
        phase: (n,) sign of a real psi, phase of a complex one.
        log: (n,) log|psi|.
        drift: (n, N, 3) grad log|psi|, 1/bohr.
        energy: (n,) real part of the local energy of the cell, Ha.
    """

    phase: jax.Array
    log: jax.Array
    drift: jax.Array
    energy: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Projection:
    """A population on its way.

    Attributes:
        walkers: (n, N, 3) bohr.
        guide: of the walkers.
        trial_energy: () E_T, Ha of the cell: the best estimate so far.
    """

    walkers: jax.Array
    guide: Guide
    trial_energy: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moved:
    """What one time step gives to the estimators.

    Attributes:
        energy: () mean of the local energies over the weights, Ha of the cell.
        log_weight: () logarithm of the mean weight, as it would be with E_T = 0: comparable from step to step.
        acceptance: () accepted fraction of the moves.
        spread: () share of the walkers that are drawn again at least once: small where few carry all the weight.
        limited: () share of the walkers whose local energy was cut off for their weight.
    """

    energy: jax.Array
    log_weight: jax.Array
    acceptance: jax.Array
    spread: jax.Array
    limited: jax.Array


def limited_drift(drift: jax.Array, time_step: float) -> jax.Array:
    """Average velocity over a time step where v diverges at a node.

    Umrigar, Nightingale and Runge, J. Chem. Phys. 99, 2865 (1993), equation 35 with a = 1, one electron at a time.

    Args:
        drift: (..., 3) v, 1/bohr.
        time_step: tau, 1/Ha.
    """
    square = jnp.sum(drift**2, axis=-1, keepdims=True) * time_step
    # (sqrt(1 + 2x) - 1) / x, written so that nothing is lost at small x
    return drift * 2 / (1 + jnp.sqrt(1 + 2 * square))


def diffuse(
    guide_of: Callable[[jax.Array], Guide], state: Projection, key: jax.Array, time_step: float
) -> tuple[Projection, Moved]:
    """One time step of a population.

    Args:
        guide_of: psi at walkers (n, N, 3).
        state: the population.
        key: random key.
        time_step: tau, 1/Ha.

    Returns:
        the population after it, drawn again by weight, and what the step says.
    """
    move_key, accept_key, draw_key = jax.random.split(key, 3)
    here, old = state.walkers, state.guide
    forward = here + time_step * limited_drift(old.drift, time_step).astype(here.dtype)
    noise = jax.random.normal(move_key, here.shape, here.dtype)
    there = forward + jnp.sqrt(time_step).astype(here.dtype) * noise
    new = guide_of(there)
    backward = there + time_step * limited_drift(new.drift, time_step).astype(here.dtype)
    ahead, back = ((x.astype(jnp.float64)) ** 2 for x in (there - forward, here - backward))
    log_ratio = 2 * (new.log - old.log).astype(jnp.float64) + jnp.sum(ahead - back, axis=(1, 2)) / (2 * time_step)
    uniform = jax.random.uniform(accept_key, log_ratio.shape, log_ratio.dtype, minval=jnp.finfo(log_ratio.dtype).tiny)
    accept = (jnp.log(uniform) < log_ratio) & jnp.isfinite(new.energy)
    if not jnp.iscomplexobj(new.phase):
        accept = accept & (new.phase * old.phase > 0)

    # The step in imaginary time is as much shorter as the electrons were moved less.
    moved = jnp.sum((there - here).astype(jnp.float64) ** 2, axis=(1, 2))
    effective = time_step * jnp.sum(jnp.where(accept, moved, 0.0)) / jnp.sum(moved)

    def chosen(after: jax.Array, before: jax.Array) -> jax.Array:
        return jnp.where(accept.reshape(-1, *[1] * (after.ndim - 1)), after, before)

    walkers, guide = chosen(there, here), jax.tree.map(chosen, new, old)
    bound = CUTOFF * jnp.sqrt(here.shape[1] / time_step)
    differences = jnp.stack([guide.energy, old.energy]).astype(jnp.float64) - state.trial_energy
    logs = -effective * jnp.mean(jnp.clip(differences, -bound, bound), axis=0)
    weights = jnp.exp(logs)
    energy = jnp.sum(weights * guide.energy) / jnp.sum(weights)
    source = comb(weights, draw_key)
    drawn = jax.tree.map(lambda leaf: leaf[source], guide)
    seen = jnp.zeros(len(source), bool).at[source].set(True)
    report = Moved(
        energy=energy,
        log_weight=jnp.log(jnp.mean(weights)) - effective * state.trial_energy,
        acceptance=jnp.mean(accept.astype(jnp.float64)),
        spread=jnp.mean(seen.astype(jnp.float64)),
        limited=jnp.mean((jnp.abs(differences[0]) > bound).astype(jnp.float64)),
    )
    return Projection(walkers[source], drawn, state.trial_energy), report


def comb(weights: jax.Array, key: jax.Array) -> jax.Array:
    """Draw n of n walkers in proportion to their weights, by equal steps through the sum: the least noise there is.

    Returns:
        (n,) index of the walker that each place is filled with.
    """
    number = len(weights)
    edges = jnp.cumsum(weights) / jnp.sum(weights)
    teeth = (jnp.arange(number, dtype=edges.dtype) + jax.random.uniform(key, (), edges.dtype)) / number
    return jnp.clip(jnp.searchsorted(edges, teeth), 0, number - 1)


def mixed_estimates(
    energies: jax.Array | np.ndarray, log_weights: jax.Array | np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Energies of the steps with the factor that a constant population leaves out (host, float64).

    Args:
        energies: (S,) of the steps, Ha.
        log_weights: (S,) logarithms of the mean weights, all with the same E_T.
        window: steps whose mean weights a step carries; 0 leaves the bias of the constant population.

    Returns:
        (S,) energies and their weights; the estimate is the weighted mean.
    """
    found, logs = np.asarray(energies, np.float64), np.asarray(log_weights, np.float64)
    centred = logs - np.mean(logs)
    sums = np.concatenate([np.zeros(1), np.cumsum(centred)])
    ends = np.arange(len(found)) + 1
    carried = sums[ends] - sums[np.maximum(ends - window, 0)]
    return found, np.exp(carried)
