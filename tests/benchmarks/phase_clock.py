"""Times, memory and rates of phases in this process."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

FEWEST, MOST = 3, 40
"""Limits of the rounds."""

SHORTEST = 0.02
"""A phase faster than this (seconds) is repeated within a round until it has taken as long."""

MATRIX_SIZES = {"cpu": 2048, "gpu": 8192}
"""Rows of the square matrices whose product gives the rate to compare with."""


def interleaved_times(runs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Time all phases again and again, in turns, so that a slow minute of the machine meets all of them alike.

    Args:
        runs: what to do; each returns arrays to wait for.
        seconds: after which no further round begins, within FEWEST to MOST rounds.

    Returns:
        seconds of one run, for every phase and round.
    """
    loops = {}
    for name, run in runs.items():
        wait_for(run())
        began = time.perf_counter()
        wait_for(run())
        loops[name] = max(1, int(np.ceil(SHORTEST / (time.perf_counter() - began))))
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    for done in range(MOST):
        if done >= FEWEST and time.perf_counter() > end:
            break
        for name, run in runs.items():
            began = time.perf_counter()
            for _ in range(loops[name]):
                wait_for(run())
            times[name].append((time.perf_counter() - began) / loops[name])
    return times


def wait_for(result: Any) -> None:
    """Block until all arrays of a result are computed."""
    jax.block_until_ready(jax.tree.leaves(result))


def peak_memory(run: Callable[[], Any]) -> float | None:
    """Largest resident memory of this process in MB while `run` runs; None where the system cannot say.

    Linux lets a process reset its high-water mark; elsewhere only the peak since its start is known.
    """
    mark = Path("/proc/self/clear_refs")
    if not os.access(mark, os.W_OK):
        wait_for(run())
        return None
    mark.write_text("5")
    wait_for(run())
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM:"))


def process_peak() -> float:
    """Largest memory in MB of this process so far: of the device where it keeps count, else resident."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"] / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def buffer_memory(compiled: jax.stages.Compiled) -> float | None:
    """Memory of a program's arguments, results and temporaries in MB, as XLA laid them out; None if it does not say."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return (total - memory.alias_size_in_bytes) / 1e6


def product_rate(dtype: Any) -> float:
    """Operations per second of a large matrix product in one precision on this machine: the best of a second."""
    size = MATRIX_SIZES.get(jax.default_backend(), MATRIX_SIZES["cpu"])
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    multiply = jax.jit(lambda a: a @ a)
    return 2 * size**3 / min(interleaved_times({"product": lambda: multiply(matrix)}, 1.0)["product"])
