"""Derivatives of log psi in the parameters, one row per walker, without running the protons' network per walker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fnqs.hamiltonian import map_walkers
from fnqs.system import System
from fnqs.wavefunction import Context, WaveFunction


def log_derivatives(
    wavefunction: WaveFunction,
    params: dict,
    systems: System,
    walkers: jax.Array,
    chunk: int,
    leaves: Sequence[int] | None = None,
) -> jax.Array:
    """Rows d log psi / d theta.

    The encoder's share is the derivative of log psi in the context, pulled back by the encoder's transposed
    derivative, whose expensive part is computed once per configuration.

    Args:
        wavefunction: the model.
        params: its parameters, P numbers, flattened as by `ravel_pytree`.
        systems: K systems, stacked.
        walkers: (K, n, N, 3) bohr.
        chunk: upper limit of walkers differentiated together.
        leaves: take only the derivatives in these leaves of the parameters, ascending; None: in all.

    Returns:
        (K, n, P) real, or (K, n, 2, P) with real and imaginary part for a complex psi.
    """
    amplitude, fill_amplitude, encoder, fill_encoder = _chosen(params, leaves)

    def rows(system: System, electrons: jax.Array) -> jax.Array:
        def encode(encoder: list[jax.Array]) -> Context:
            return wavefunction.encode({"encoder": fill_encoder(encoder)}, system)

        context, pull_back = jax.vjp(encode, encoder)

        def parts(amplitude: list[jax.Array], context: Context, r: jax.Array) -> tuple[jax.Array, ...]:
            phase, log = wavefunction.log_psi({"amplitude": fill_amplitude(amplitude)}, context, r)
            return (log, jnp.angle(phase)) if jnp.iscomplexobj(phase) else (log,)

        def one(r: jax.Array) -> jax.Array:
            values, backward = jax.vjp(lambda a, c: parts(a, c, r), amplitude, context)
            gradients = []
            for chosen in range(len(values)):
                seeds = tuple(jnp.asarray(float(i == chosen), v.dtype) for i, v in enumerate(values))
                for_amplitude, for_context = backward(seeds)
                (for_encoder,) = pull_back(for_context)
                gradients.append(ravel_pytree((for_amplitude, for_encoder))[0])
            return gradients[0] if len(gradients) == 1 else jnp.stack(gradients)

        return jax.vmap(one)(electrons)

    return map_walkers(rows, (systems,), walkers, chunk)


def _chosen(params: dict, leaves: Sequence[int] | None) -> tuple[list, Callable, list, Callable]:
    """Chosen leaves of the amplitude and of the encoder, each with a function that puts them among the others.

    `ravel_pytree` has the amplitude's leaves before the encoder's.
    """
    result, first = [], 0
    for part in ("amplitude", "encoder"):
        found, structure = jax.tree.flatten(params[part])
        places = [i for i in range(len(found)) if leaves is None or first + i in leaves]
        first += len(found)

        def fill(chosen: list, found=found, structure=structure, places=places) -> dict:
            merged = dict(enumerate(found)) | dict(zip(places, chosen, strict=True))
            return jax.tree.unflatten(structure, merged.values())

        result += [[found[i] for i in places], fill]
    return tuple(result)
