"""Sines and cosines of whole-number multiples of turns, by power series.

The range reduction is exact in turns, so arguments may be of any size, and on processors a series vectorises where the
library functions do not (7 times faster in float32). The series stop below the rounding error for half angles up to
pi / 2.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def sin_cos_half_turns(turns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sine and cosine of pi times the argument, both with the wrong sign where the nearest whole number is odd.

    Products of two of them, which is all that periodic functions need, have the right sign.
    """
    half = jnp.pi * (turns - jnp.round(turns))
    square = half * half
    terms = 11 if turns.dtype == jnp.float64 else 7
    sine, cosine = jnp.ones_like(half), jnp.ones_like(half)
    for k in range(terms, 0, -1):
        sine = 1 - square * sine * (1 / (2 * k * (2 * k + 1)))
        cosine = 1 - square * cosine * (1 / (2 * k * (2 * k - 1)))
    return half * sine, cosine


def cos_sin_turns(turns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of 2 pi times the argument."""
    sine, cosine = sin_cos_half_turns(turns)
    return 1 - 2 * sine * sine, 2 * sine * cosine
