"""Time, memory and growth of every phase of an optimisation step.

    python tests/benchmarks/phases.py                                   N = 8, 16, 32, 54; 64 walkers; under 10 minutes
    python tests/benchmarks/phases.py --numbers 8 16 --seconds 5        a quick look
    python tests/benchmarks/phases.py --output phases --compare old/phases.json
    python tests/benchmarks/phases.py --precision --run runs/bcc_n16    float32 against float64, on a trained network

Prints for each N the milliseconds of each phase for all walkers together (median and half the distance of the
quartiles over rounds in which the phases take turns), the ratios to a forward pass run alone and to a sweep (a forward
pass inside a loop, and the move; on a CPU often the shorter), operations, their rate as a share of a large matrix
product's in the same precision ("roofline"), memory and compile time, then the wait for data and the growth with N of
the time per walker. --output keeps phases.json, for --compare, and phases.png.

Each N runs in a process of its own. "buffers" is what XLA allots to arguments, results and temporaries of a program;
"peak" the largest resident memory of the process while the phase ran, imports and all programs included. Operations
are those of XLA's cost analysis before optimisation: library calls (factorisations) and transcendental functions count
for nothing, so the solve is counted by hand and the other shares are lower bounds. The cells are crystals at
r_s = 1.31 bohr, Gamma: sc, bcc, fcc and bcc cubes for N = 8, 16, 32, 54, compact supercells of bcc for others; the
network is untrained unless --run gives one.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from phase_case import Case
from phase_precision import compare_precisions, precision_text
from phase_report import comparison_text, exponents, plot, table_text
from phase_worker import measure

from fnqs.cli.command_line import CommandParser, positive_float, positive_int, run_command
from fnqs.errors import InputError
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint
from fnqs_train.config import RunConfig, load_config
from fnqs_train.loading import load_params

CONFIG = Path(__file__).parents[2] / "configs" / "benchmarks" / "bcc_n16.toml"

EQUILIBRATION = 50
"""Sweeps before a phase is timed: the electrons need not be a sample for that."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = CommandParser(prog="phases.py", description=__doc__)
    parser.add_argument("--numbers", nargs="+", type=positive_int, default=[8, 16, 32, 54], metavar="N")
    parser.add_argument("--walkers", type=positive_int, default=64, help="of all configurations together")
    parser.add_argument("--configurations", type=positive_int, default=1, help="that meet in a step")
    parser.add_argument("--sweeps", type=positive_int, default=10)
    parser.add_argument("--seconds", type=positive_float, default=30.0, help="of repetition for each N, at least")
    parser.add_argument("--config", type=Path, default=CONFIG, help="whose model and optimiser are measured")
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", nargs="+", action="extend", default=[])
    parser.add_argument("--run", type=Path, help="trained run (or checkpoint) to take config and parameters from")
    parser.add_argument("--tf32", action="store_true", help="let accelerators round matrix products")
    parser.add_argument("--precision", action="store_true", help="compare float32 with float64 energies instead")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for phases.json and phases.png")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="an older phases.json")
    options = parser.parse_args(arguments)
    if options.walkers % options.configurations:
        raise InputError(f"{options.walkers} walkers cannot be shared equally by {options.configurations}")
    old = _read(options.compare) if options.compare else None
    config, params = _model(options)

    results = {}
    for number in sorted(set(options.numbers)):
        case = Case(config, number, options.seconds, options.tf32, params)
        # A new process for each N, and not a fork: a fork of a process with threads may hang.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            began = time.perf_counter()
            results[str(number)] = pool.submit(
                _work, compare_precisions if options.precision else measure, case
            ).result()
        print(f"N = {number}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    if options.precision:
        print(precision_text(results))
        return 0

    first = next(iter(results.values()))["environment"]
    report = {
        "settings": _settings(options, config),
        "environment": environment() | first,
        "numbers": results,
        "exponents": exponents(results, options.walkers),
    }
    print(json.dumps(report["environment"], indent=1))
    print(table_text(report))
    if old:
        print(comparison_text(report, old))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "phases.json").write_text(json.dumps(report, indent=1) + "\n")
        plot(report, options.output / "phases.png")
    return 0


def environment() -> dict[str, Any]:
    """Machine and versions, for comparisons between reports."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "date": date.today().isoformat(),
        "commit": commit,
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
    }


def _work(function: Callable[[Case], dict[str, Any]], case: Case) -> dict[str, Any]:
    """Run in the other process; jax's errors cannot travel between processes, their texts can."""
    try:
        return function(case)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise RuntimeError("".join(traceback.format_exception(error))) from None


def _model(options) -> tuple[RunConfig, dict | None]:
    params = None
    if options.run:
        checkpoint = resolve_checkpoint(options.run)
        config = load_config(checkpoint.run_folder)
        params = jax.tree.map(np.asarray, load_params(checkpoint, config))
    else:
        config = load_config(options.config, options.overrides)
    sampling = dataclasses.replace(
        config.sampling,
        walkers_per_configuration=options.walkers // options.configurations,
        configurations_per_step=options.configurations,
        sweeps=options.sweeps,
        equilibration_sweeps=config.sampling.equilibration_sweeps if options.precision else EQUILIBRATION,
    )
    return dataclasses.replace(config, sampling=sampling), params


def _settings(options, config: RunConfig) -> dict[str, Any]:
    return {
        "numbers": sorted(set(options.numbers)),
        "walkers": options.walkers,
        "configurations": options.configurations,
        "sweeps": options.sweeps,
        "tf32": options.tf32,
        "trained": options.run is not None,
        "model": json.loads(json.dumps(dataclasses.asdict(config.model))),
        "optimizer": dataclasses.asdict(config.optimizer),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{path}: not a JSON file; give a phases.json that --output wrote") from None
    if not isinstance(report, dict) or "numbers" not in report:
        raise InputError(f"{path}: not a report of this benchmark; give a phases.json that --output wrote")
    return report


if __name__ == "__main__":
    sys.exit(run_command("phases.py", main))
