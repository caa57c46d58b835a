"""Devices that the environment asks for and the machine does not have."""

from __future__ import annotations

import os
import sys


def missing_devices() -> str | None:
    """Return a sentence if JAX cannot start with the devices that JAX_PLATFORMS names, None if it can.

    Asked after something has failed: JAX starts its devices at their first use, anywhere in a program, and complains
    with exceptions of several types, some of them without a word.
    """
    wanted = os.environ.get("JAX_PLATFORMS")
    jax = sys.modules.get("jax")
    if not wanted or jax is None:
        return None
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition(" (set JAX_PLATFORMS")[0].partition("\n")[0]
        return (
            f"JAX_PLATFORMS={wanted}: JAX finds no such device here{f' ({reason})' if reason else ''}; take "
            f"the variable out of the environment or set it to cpu, or install JAX for the device (jax[cuda13], say)"
        )
    return None
