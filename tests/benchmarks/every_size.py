"""Whether evaluations of every size end on several processor devices of one process.

    python tests/benchmarks/every_size.py                           # N = 2 to 128, 1 to 5 cells, 1 to 4 devices
    python tests/benchmarks/every_size.py --sizes 54 --repeat 50    # one size, again and again

Every number of devices has a process of its own, which tells each case as it ends; a case that takes longer than
--limit seconds counts as stuck. Prints the seconds of every case, compilation included; code 1 if one was stuck. The
model is small and its energies mean nothing: what is asked is whether threads wait for one another for ever.
"""

import argparse
import dataclasses
import os
import queue
import subprocess
import sys
import threading
import time
from functools import cache

import jax
import numpy as np

from fnqs.configuration import make_configuration
from fnqs.model_config import ModelConfig
from fnqs.precision import configure
from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.record import Record
from fnqs_eval.energies.energy import EvaluationSettings, evaluate_records

MODEL = ModelConfig(features=8, vectors=4, amplitudes=4, radial_functions=4, proton_rounds=1)
SETTINGS = EvaluationSettings(
    walkers=16,
    equilibration_sweeps=10,
    equilibration_limit=40,
    sweeps_between=1,
    target_error=1e-6,
    max_measurements=16,
)


def cells(number: int, count: int) -> list[Record]:
    """Disordered simple cubic cells of r_s = 1.4 bohr, in boxes of N = l m n sites."""
    shape = next(
        (i, j, number // (i * j))
        for i in range(round(number ** (1 / 3) + 0.5), 0, -1)
        for j in range(i, 0, -1)
        if number % (i * j) == 0
    )
    spacing = 1.4 * (4 * np.pi / 3) ** (1 / 3)
    sites = spacing * np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    moves = np.random.default_rng(number).normal(scale=0.05, size=(count, number, 3))
    box = spacing * np.diag(shape)
    return [
        Record(configuration=make_configuration(box, sites + move), identifier=f"cell-{index}")
        for index, move in enumerate(moves)
    ]


@cache
def initialiser(wavefunction: WaveFunction):
    """Compile what makes untrained parameters."""
    return jax.jit(wavefunction.init)


def parameters(wavefunction: WaveFunction, record: Record) -> dict:
    """Untrained parameters."""
    return initialiser(wavefunction)(jax.random.key(0), make_system(record.configuration, wavefunction.config))


def evaluate(wavefunction: WaveFunction, records: list[Record], walkers: int, seed: int) -> bool:
    """Sample every record for a moment; whether all energies are numbers."""
    settings = dataclasses.replace(SETTINGS, walkers=walkers, seed=seed)
    results = evaluate_records(wavefunction, parameters(wavefunction, records[0]), records, settings)
    return all(np.isfinite(result.energy_per_atom) for result in results)


def run_cases(devices: int, walkers: int, cases: list[str]) -> None:
    """Run cases N:CELLS in turn in this process, telling each that has ended."""
    configure()
    jax.config.update("jax_num_cpu_devices", devices)
    if jax.local_device_count() != devices:
        raise SystemExit(f"{jax.local_device_count()} devices, not {devices}")
    wavefunction = WaveFunction(MODEL)
    for seed, case in enumerate(cases):
        number, count = map(int, case.split(":"))
        valid = evaluate(wavefunction, cells(number, count), walkers, seed)
        print(f"{case} {'ended' if valid else 'without a number'}", flush=True)


def watch(devices: int, walkers: int, cases: list[str], limit: float) -> int:
    """Run cases in a process of their own; returns how many did not end, each within so many seconds."""
    command = [sys.executable, __file__, "--run", str(devices), str(walkers), *cases]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: [lines.put(line) for line in process.stdout or ()], daemon=True).start()
    for done, case in enumerate(cases):
        began = time.perf_counter()
        try:
            said = lines.get(timeout=limit).strip()
        except queue.Empty:
            said = "STUCK"
        seconds = time.perf_counter() - began
        print(f"{devices} devices, {case}: {said.removeprefix(case).strip()}, {seconds:.0f} s", flush=True)
        if not said.endswith("ended"):
            process.kill()
            return len(cases) - done
    return process.wait() and 1


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 8, 16, 32, 54, 96, 128], help="N")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 3, 5], help="cells evaluated together")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--walkers", type=int, default=SETTINGS.walkers, help="of each cell")
    parser.add_argument("--repeat", type=int, default=1, help="times that each case is run")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for a case")
    parser.add_argument("--run", nargs="+", metavar=("DEVICES", "WALKERS CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_cases(int(options.run[0]), int(options.run[1]), options.run[2:])
        return 0
    cases = [f"{n}:{count}" for n in options.sizes for count in options.counts for _ in range(options.repeat)]
    stuck = sum(watch(devices, options.walkers, cases, options.limit) for devices in options.devices)
    print(f"{stuck} of {len(cases) * len(options.devices)} cases did not end")
    return 1 if stuck else 0


if __name__ == "__main__":
    sys.exit(main())
