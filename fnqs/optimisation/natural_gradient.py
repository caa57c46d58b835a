"""The natural gradient in sample space, minSR and SPRING, as an optax transformation.

The rows O of the Jacobian of log psi and the residuals epsilon (local energies) are centred per configuration
and divided by the square root of the number of rows. With damping lambda and momentum mu, the direction is

    delta_t = O^T (O O^T + lambda)^-1 (epsilon - mu O delta_{t-1}) + mu delta_{t-1},

minSR (Chen & Heyl 2024) at mu = 0 and SPRING (Goldshlager, Abrahamsen & Lin 2024) otherwise. Centring makes
the sum of a configuration's rows vanish, so O O^T has one null vector per configuration. The right-hand side
is centred too and has no part along it, O^T removes whatever rounding adds, and lambda > 0 keeps the matrix
definite: the constant that the SPRING paper adds to the Gram matrix would leave delta as it is.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Inexact

from fnqs.errors import InputError
from fnqs.optimisation.jacobian import Jacobian, StoredJacobian

FALLBACK_FACTOR = 100.0
"""How much larger the damping is in the second attempt, after a failed factorisation."""

NEXT_FACTOR, ATTEMPTS = 10.0, 8
"""How much larger it is in every further attempt, and how many there are in all."""

Weighting = Literal["spread", "equal"]
"""Weights of the configurations of a step: `spread_weights`, or none."""

SHARED = 0.1
"""Part of the mean square of all spreads in that of a configuration, for its weight (`spread_weights`)."""


class SpringState(NamedTuple):
    """State of `spring`.

    Attributes:
        count: () steps taken, int32.
        delta: (P,) the last direction, before learning rate and norm limit.
        condition: () lower bound of the condition number of the damped Gram matrix, float32.
        fallback: () whether the last solve needed the larger damping.
    """

    count: jax.Array
    delta: jax.Array
    condition: jax.Array
    fallback: jax.Array


def spring(
    learning_rate: float | optax.Schedule,
    *,
    damping: float = 1e-3,
    momentum: float = 0.95,
    max_norm: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Natural gradient with momentum; momentum 0 is plain minSR.

    The transformation's `update` takes two more arguments: `jacobian`, centred and scaled derivatives of log psi by
    the parameters in the order of `ravel_pytree`, as an array (R, P) or a `Jacobian`, and `residual` (R,), the local
    energies likewise (`centre_per_configuration`); a complex psi gives real and imaginary parts as separate rows.
    The incoming updates give the tree structure only. The Gram matrix is formed and factorised in float64, so it has
    a Cholesky factor at any damping above 1e-16 of its trace; should it fail all the same, it is tried again with
    FALLBACK_FACTOR times the damping, and with ten times more until it succeeds, ATTEMPTS times in all, and the state
    says so. Non-finite input gives non-finite updates: the caller decides whether to skip the step.

    Args:
        learning_rate: eta, or a schedule of it by the number of steps taken.
        damping: lambda > 0, in units of the squared derivatives of log psi.
        momentum: mu, 0 <= mu < 1.
        max_norm: if given, the update is -eta delta min(1, max_norm / |delta|): no update is longer than
            eta max_norm, and the stored direction is not shortened. The SPRING paper's constant bound sqrt(C)
            on the update is max_norm = sqrt(C) / eta.

    Raises:
        InputError: damping, momentum or max_norm out of range.
    """
    if not damping > 0:
        raise InputError(f"damping = {damping}: the natural gradient needs a damping above zero, such as 1e-3")
    if not 0 <= momentum < 1:
        raise InputError(f"momentum = {momentum}: give a number from 0 (plain minSR) to below 1")
    if max_norm is not None and not max_norm > 0:
        raise InputError(f"max_norm = {max_norm}: the longest step must be above zero")

    def init(params: optax.Params) -> SpringState:
        flat, _ = ravel_pytree(params)
        return SpringState(
            jnp.zeros((), jnp.int32), jnp.zeros_like(flat), jnp.ones((), jnp.float32), jnp.zeros((), bool)
        )

    def update(
        updates: optax.Updates,
        state: SpringState,
        params: optax.Params | None = None,
        *,
        jacobian: jax.Array | Jacobian,
        residual: jax.Array,
        **_,
    ) -> tuple[optax.Updates, SpringState]:
        del params
        _, unravel = ravel_pytree(updates)
        jacobian = StoredJacobian(jacobian) if isinstance(jacobian, jax.Array) else jacobian
        carried = (momentum * state.delta).astype(jacobian.dtype)
        gram, product = jacobian.gram_and_times(carried)
        solution, condition, fallback = _solve_gram(gram, residual.astype(jnp.float64) - product, damping)
        delta = (jacobian.transposed_times(solution) + carried.astype(jnp.float64)).astype(state.delta.dtype)
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        scale = jnp.asarray(rate, delta.dtype)
        if max_norm is not None:
            length = jnp.linalg.norm(delta)
            scale = scale * jnp.where(length > max_norm, max_norm / length, 1.0).astype(delta.dtype)
        state = SpringState(state.count + 1, delta, condition.astype(jnp.float32), fallback)
        return unravel(-scale * delta), state

    # optax types `update` without the keyword arguments that it passes on.
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _solve_gram(gram: jax.Array, target: jax.Array, damping: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Solve (gram + damping) x = target in float64; also the condition estimate and the fallback flag."""
    rounding = float(jnp.finfo(gram.dtype).eps)
    identity = jnp.eye(len(gram), dtype=jnp.float64)

    def factorise(amount):
        return jnp.linalg.cholesky(gram + amount * identity)

    def failed(factor):
        return ~jnp.all(jnp.isfinite(factor))

    factor = factorise(damping)
    fallback = failed(factor)
    larger = jnp.maximum(FALLBACK_FACTOR * damping, 4 * rounding * jnp.trace(gram))
    # The loop is not entered where the first attempt succeeds.
    _, _, factor = jax.lax.while_loop(
        lambda state: failed(state[2]) & (state[0] < ATTEMPTS),
        lambda state: (state[0] + 1, NEXT_FACTOR * state[1], factorise(state[1])),
        (1, larger, factor),
    )
    solution = jax.scipy.linalg.cho_solve((factor, True), target)
    diagonal = jnp.diagonal(factor)
    return solution, (jnp.max(diagonal) / jnp.min(diagonal)) ** 2, fallback


def centre_per_configuration(values: Inexact[Array, "k n *rest"]) -> Inexact[Array, " kn *rest"]:
    """Subtract each configuration's mean and divide by the square root of the number of samples.

    Never centre over the whole batch: that mixes the differences between systems into the gradient.

    Args:
        values: (K, n, ...) of K configurations with n samples each.

    Returns:
        (K n, ...) rows for the solve.
    """
    number = values.shape[0] * values.shape[1]
    centred = values - jnp.mean(values, axis=1, keepdims=True)
    return (centred * number**-0.5).reshape(number, *values.shape[2:])


def stack_parts(rows: Inexact[Array, "r parts *rest"]) -> Inexact[Array, " rparts *rest"]:
    """Turn the parts (real; or real and imaginary) of rows (R, parts, ...) into (parts R, ...), real ones first."""
    return jnp.moveaxis(rows, 1, 0).reshape(-1, *rows.shape[2:])


def clip_local_energies(energies: Inexact[Array, "k n"], width: float = 5.0) -> Inexact[Array, "k n"]:
    """Clip local energies around the median of their configuration, for the gradient only.

    Args:
        energies: (K, n), any energy unit; real and imaginary parts of complex ones are clipped separately.
        width: half width of the allowed window in mean absolute deviations from the median.

    Returns:
        (K, n) clipped energies.
    """
    if jnp.iscomplexobj(energies):
        return jax.lax.complex(
            clip_local_energies(jnp.real(energies), width), clip_local_energies(jnp.imag(energies), width)
        )
    median = jnp.median(energies, axis=1, keepdims=True)
    spread = width * jnp.mean(jnp.abs(energies - median), axis=1, keepdims=True)
    return jnp.clip(energies, median - spread, median + spread)


def spread_weights(energies: Inexact[Array, "k n"], finite: Bool[Array, " k"]) -> Float[Array, " k"]:
    """Weights of configurations in the gradient, such that the spread of local energies is about the same in each.

    Without them dense and large cells, whose local energies are far apart, rule a step of many configurations. A
    configuration's own spread, from few walkers, is mixed with the mean of all (SHARED), which bounds the weights.

    Args:
        energies: (K, n) clipped local energies, in any unit.
        finite: (K,) configurations that count.

    Returns:
        (K,) about the mean spread over that of each configuration.
    """
    centred = energies - jnp.median(jnp.real(energies), axis=1, keepdims=True).astype(energies.dtype)
    spread = jnp.mean(jnp.abs(centred), axis=1)
    mean = jnp.sum(jnp.where(finite, spread, 0.0)) / jnp.maximum(jnp.sum(finite.astype(spread.dtype)), 1.0)
    mixed = jnp.sqrt((1 - SHARED) * spread**2 + SHARED * mean**2)
    return jnp.where(mixed > 0, mean / mixed, 1.0)
