"""Derivatives of log psi in the parameters, one row per walker, without running the protons' network per walker."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fnqs.local_energy import map_walkers
from fnqs.system import System
from fnqs.wavefunction import Context, WaveFunction


def log_derivatives(
    wavefunction: WaveFunction, params: dict, systems: System, walkers: jax.Array, chunk: int
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

    Returns:
        (K, n, P) real, or (K, n, 2, P) with real and imaginary part for a complex psi.
    """

    def rows(system: System, electrons: jax.Array) -> jax.Array:
        def encode(encoder: dict) -> Context:
            return wavefunction.encode({"encoder": encoder}, system)

        context, pull_back = jax.vjp(encode, params["encoder"])

        def parts(amplitude: dict, context: Context, r: jax.Array) -> tuple[jax.Array, ...]:
            phase, log = wavefunction.log_psi({"amplitude": amplitude}, context, r)
            return (log, jnp.angle(phase)) if jnp.iscomplexobj(phase) else (log,)

        def one(r: jax.Array) -> jax.Array:
            values, backward = jax.vjp(lambda a, c: parts(a, c, r), params["amplitude"], context)
            gradients = []
            for chosen in range(len(values)):
                seeds = tuple(jnp.asarray(float(i == chosen), v.dtype) for i, v in enumerate(values))
                for_amplitude, for_context = backward(seeds)
                (for_encoder,) = pull_back(for_context)
                gradients.append(ravel_pytree({"encoder": for_encoder, "amplitude": for_amplitude})[0])
            return gradients[0] if len(gradients) == 1 else jnp.stack(gradients)

        return jax.vmap(one)(electrons)

    return map_walkers(rows, (systems,), walkers, chunk)
