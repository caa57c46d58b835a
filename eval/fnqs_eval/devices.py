"""Every core of a processor as a device of its own."""

from __future__ import annotations

import os

import jax


def use_every_core() -> None:
    """Let JAX see as many processor devices as cores that this process may use.

    A program that moves a few hundred walkers has operations too small for two cores to share; two programs side by
    side have nothing to wait for. They share one pool of threads, at least as many as devices, in which nothing may
    wait for that pool (`fnqs.factorisations`). Accelerators are not affected. Where JAX has looked for its devices
    already, as in a process that trained before, it keeps those.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        jax.config.update("jax_num_cpu_devices", cores or 1)
    except RuntimeError as reason:
        if "before backends are initialized" not in str(reason):
            raise
