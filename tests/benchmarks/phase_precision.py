"""How much the energy changes when the network computes in float64 instead of float32."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from time import monotonic, perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from phase_case import SEED, Case, make_state

from fnqs.hamiltonian import local_energies
from fnqs.precision import configure
from fnqs.sampling.metropolis import metropolis
from fnqs.wavefunction import WaveFunction
from fnqs_train.chunks import choose_chunks

FEWEST, MOST = 4, 64
"""Limits of the samples of every walker."""


def compare_precisions(case: Case) -> dict[str, float]:
    """Local energies of the same walkers in float32 and float64, sampled in float32.

    The density that is sampled is the float32 one, so the energy that float64 would have given also differs by the
    weights |psi_64 / psi_32|^2.

    Returns:
        Ha per atom: "energy" and "error" in float32, that of the samples taken; "difference" of the means on the
        same walkers, float32 minus float64, "largest" of one walker's; "weighted", the difference of the energies
        with the weights, each with its "..._error"; and "log_psi", the largest difference of log |psi| less its
        mean, with "samples" of all walkers together.
    """
    configure(tf32=case.tf32)
    config, wavefunction = case.config, WaveFunction(case.config.model)
    state = make_state(case, perf_counter)
    chunk = choose_chunks(case.number, config.model, config.memory).energy
    systems = jax.device_put(state.systems)

    def evaluate(params, walkers):
        contexts = jax.vmap(partial(wavefunction.encode, params))(systems)
        energies = local_energies(wavefunction, params, contexts, systems, walkers, chunk)
        log_psi = jax.vmap(jax.vmap(lambda c, r: wavefunction.log_psi(params, c, r)[1], (None, 0)))(contexts, walkers)
        return jnp.real(energies).astype(jnp.float64).ravel(), log_psi.astype(jnp.float64).ravel()

    @jax.jit
    def sample(params, walkers, key):
        return metropolis(wavefunction, params, state.contexts, walkers, state.widths, key, config.sampling.sweeps)[0]

    evaluate = jax.jit(evaluate)
    double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), state.params)
    walkers, rows = state.walkers, []
    end = monotonic() + case.seconds
    while len(rows) < FEWEST or (monotonic() < end and len(rows) < MOST):
        walkers = sample(state.params, walkers, jax.random.fold_in(jax.random.key(SEED), len(rows)))
        rows.append([*evaluate(state.params, walkers), *evaluate(double, walkers.astype(jnp.float64))])
    single, log_single, exact, log_exact = np.moveaxis(np.array(rows), 1, 0)  # each (samples, walkers)
    shift = log_exact - log_single
    shift -= shift.mean()
    weights = np.exp(2 * shift)
    weights /= weights.mean()
    weighted = float(np.mean(weights * exact))
    # To first order in the noise, the quotient of two means varies like this sum of single terms.
    influence = single - single.mean() - weights * (exact - weighted)
    number = case.number
    return {
        "energy": float(single.mean()) / number,
        "error": _error(single) / number,
        "difference": float(np.mean(single - exact)) / number,
        "difference_error": _error(single - exact) / number,
        "largest": float(np.abs(single - exact).max()) / number,
        "weighted": (float(single.mean()) - weighted) / number,
        "weighted_error": _error(influence) / number,
        "log_psi": float(np.abs(shift).max()),
        "samples": single.size,
    }


def precision_text(results: Mapping[str, Any]) -> str:
    """The comparison as lines for a terminal."""
    lines = [
        "float32 minus float64, Ha per atom: on the same walkers, the largest of one walker, and with each precision's",
        "own density; then the energy with its statistical error, and the largest difference of log |psi|",
        f"{'N':>4}{'samples':>9}{'same walkers':>24}{'largest':>12}{'own density':>24}"
        f"{'E/N':>12}{'error':>10}{'log psi':>10}",
    ]
    for number, row in results.items():
        same, own = (f"{row[k]:+.1e} +- {row[k + '_error']:.1e}" for k in ("difference", "weighted"))
        lines.append(
            f"{number:>4}{row['samples']:>9}{same:>24}{row['largest']:>12.1e}{own:>24}{row['energy']:>12.5f}"
            f"{row['error']:>10.1e}{row['log_psi']:>10.1e}"
        )
    return "\n".join(lines)


def _error(values: np.ndarray) -> float:
    """Standard error of the mean of (samples, walkers); every walker is one independent chain."""
    chains = values.mean(axis=0)
    return float(chains.std(ddof=1) / np.sqrt(len(chains)))
