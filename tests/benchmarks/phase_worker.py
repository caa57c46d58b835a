"""Everything measured for one N, in a process of its own, so that its memory is its own."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from phase_case import Case, make_state
from phase_clock import buffer_memory, interleaved_times, peak_memory, process_peak, product_rate
from phase_programs import Phase, make_phases, make_step_phase

from fnqs.precision import configure
from fnqs_data.store.record import Record
from fnqs_data.store.write import write_dataset
from fnqs_data.stream.prepared_systems import PreparedSystems
from fnqs_data.stream.stream import ConfigurationStream
from fnqs_train.training_input import training_input

DISPLACEMENT = 0.05
"""Standard deviation (bohr) of the protons from the crystal's sites, where every step meets another configuration."""

VISITS = 12
"""Configurations of which the wait for data is measured."""


def measure(case: Case) -> dict[str, Any]:
    """Time every phase of one N; compiled programs are cached in a folder that is empty at first.

    Returns:
        "phases": per phase milliseconds (median), spread (half the distance of the quartiles), rounds,
        operations, rate (per second), roofline (share of the matrix product's rate), buffers and peak (MB), and
        compile_seconds; "data": see `data_wait`; "compile" (seconds), "peak" (MB) of the process, "product_rate".
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FNQS_CACHE"] = folder
        configure(tf32=case.tf32)
        return _measure(case)


def _measure(case: Case) -> dict[str, Any]:
    rates = {double: product_rate(jnp.float64 if double else jnp.float32) for double in (False, True)}
    state = make_state(case, time.perf_counter)
    phases = make_phases(case, state, time.perf_counter)
    peaks = {name: peak_memory(phase.run) for name, phase in phases.items()}
    times = interleaved_times({name: phase.run for name, phase in phases.items()}, case.seconds)
    further = case.config.sampling.sweeps - 1
    if further:
        pairs = zip(times["sampling"], times["sweep_one"], strict=True)
        times["sweep"] = [(whole - one) / further for whole, one in pairs]
        # A sweep is one forward pass and the move: its operations are those of the pass.
        phases["sweep"] = Phase(phases["forward"].run, operations=phases["forward"].operations)
    rows = {name: _row(phase, times[name], peaks.get(name), rates[phase.double]) for name, phase in phases.items()}
    data = data_wait(case, phases["step"])
    peak = process_peak()
    jax.clear_caches()
    again = make_step_phase(case, state, time.perf_counter)
    return {
        "crystal": case.crystal,
        "phases": rows,
        "data": data,
        "compile": state.compile_seconds | {"step": phases["step"].compile_seconds, "step_warm": again.compile_seconds},
        "peak_megabytes": peak,
        "product_rate": {"float32": rates[False], "float64": rates[True]},
        "environment": {"device": jax.devices()[0].device_kind, "backend": jax.default_backend()},
    }


def data_wait(case: Case, step: Phase) -> dict[str, float]:
    """Run steps as the loop does, each with configurations never seen, and measure how long they wait for them.

    This is the worst case: systems seen before are kept, and new ones equilibrate while the next are prepared.

    Returns:
        wait and step (milliseconds, means over all steps but the first), their ratio, and the longest wait.
    """
    sampling = case.config.sampling
    batch = sampling.configurations_per_step
    with tempfile.TemporaryDirectory() as folder:
        records = [
            Record(configuration=case.configuration(DISPLACEMENT, seed), identifier=f"{seed}", phase="bcc")
            for seed in range(VISITS * batch)
        ]
        dataset = write_dataset(Path(folder) / "data", records)
        stream = ConfigurationStream(dataset, np.arange(len(records)), batch_configurations=batch, seed=0)
        prepared = PreparedSystems(case.config.model, case.config.memory.prepared_bytes)
        with training_input(stream, prepared, None, start=0, stop=VISITS) as batches:
            waits, steps = [], []
            for _ in range(VISITS):
                began = time.perf_counter()
                _, systems = next(batches)
                waits.append(time.perf_counter() - began)
                step.run(systems)
                steps.append(time.perf_counter() - began)
    wait, whole = float(np.mean(waits[1:])), float(np.mean(steps[1:]))
    return {
        "wait_milliseconds": 1e3 * wait,
        "step_milliseconds": 1e3 * whole,
        "fraction": wait / whole,
        "longest_milliseconds": 1e3 * max(waits[1:]),
    }


def _row(phase: Phase, times: list[float], peak: float | None, product: float) -> dict[str, Any]:
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75])
    rate = None if phase.operations is None else phase.operations / median
    return {
        "milliseconds": 1e3 * float(median),
        "spread": 1e3 * float(high - low) / 2,
        "rounds": len(times),
        "operations": phase.operations,
        "rate": rate,
        "roofline": None if rate is None else rate / product,
        "buffer_megabytes": None if phase.compiled is None else buffer_memory(phase.compiled),
        "peak_megabytes": peak,
        "compile_seconds": phase.compile_seconds,
    }
