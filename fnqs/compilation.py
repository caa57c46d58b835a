"""How the large programs are compiled: on processors by those parts of XLA that take the least time for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

QUICK = {"xla_cpu_use_fusion_emitters": False}
"""XLA's older emitters, which run as fast: equilibration and step of N = 8 in quickstart.toml compiled in 24 instead of
38 s with them, on two processor cores (jaxlib 0.10.2)."""


def compiled(function: Callable, **settings: Any) -> Any:
    """Return `jax.jit(function, **settings)`, compiled by the older emitters on processors, if XLA has them.

    For programs that are called from outside; inside another program `jax.jit` takes no options.
    """
    return jax.jit(function, compiler_options=dict(_options()), **settings)


@cache
def _options() -> tuple[tuple[str, Any], ...]:
    if jax.default_backend() != "cpu":
        return ()
    try:
        jax.jit(lambda: 0, compiler_options=QUICK).lower().compile()
    except jax.errors.JaxRuntimeError:  # a version of XLA that knows them no more
        return ()
    return tuple(QUICK.items())
