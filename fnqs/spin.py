"""The total spin of the wave function, sampled: S^2 = N/2 - sum_ij P_ij over up electrons i and down electrons j.

P_ij exchanges the positions of the two. The formula holds for N/2 electrons of either spin; S^2 is 0 for singlets and
2 for triplets, and in between where a wave function mixes them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnqs.wavefunction import Context, WaveFunction


def sampled_spin_squared(
    wavefunction: WaveFunction, params: dict, context: Context, electrons: jax.Array, key: jax.Array
) -> jax.Array:
    """N/2 - (N/2)^2 Re[psi(P_ij r) / psi(r)] for one pair drawn at random: its mean over |psi|^2 and pairs is <S^2>.

    One pair a walker costs one more evaluation of psi and is as efficient as all of them, which are nearly independent.

    Args:
        wavefunction: the model.
        params: its parameters.
        context: of the configuration.
        electrons: (N, 3) bohr, spin up first.
        key: random key.
    """
    half = electrons.shape[0] // 2
    first, second = jax.random.randint(key, (2,), 0, half)
    second = second + half
    exchanged = electrons.at[first].set(electrons[second]).at[second].set(electrons[first])
    phase, log = wavefunction.log_psi(params, context, electrons)
    other_phase, other_log = wavefunction.log_psi(params, context, exchanged)
    ratio = jnp.real(other_phase * jnp.conj(phase)) * jnp.exp(other_log - log)
    return half - half**2 * ratio
