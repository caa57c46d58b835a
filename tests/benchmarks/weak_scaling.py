"""Weak scaling on processors: one process with n walkers, then P processes with n walkers each, one core a process.

    python tests/benchmarks/weak_scaling.py FOLDER [processes=2] [number=16] [steps=12]

Every process is bound to a core of its own and computes with one thread. Prints the median time of a step, alone, of P
separate runs at the same time (what the machine's shared memory costs by itself) and of one run in P processes, each
the fastest of ROUNDS runs that take turns, since the speed of a machine that others use too changes from minute to
minute; the efficiencies; and the bytes a step sends, counted by the kernel on the loopback device, beside what the
exchange cannot do without. FOLDER keeps the compiled programs.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from fnqs_train.checkpointing.checkpoint import restore_params
from fnqs_train.monitoring.metrics import read_metrics

CONFIGURATIONS, WALKERS = 4, 16
"""In a step, and walkers of each in one process."""

ROUNDS = 4
"""Runs of each kind, in turns."""

LEFT_OUT = 4
"""First steps, which compile and equilibrate."""

RECIPE = (
    'name = "scaling"\n[[family]]\nphase = "bcc"\nnumber = [{number}]\nr_s = 1.31\ncount = 4\ndisplacement = 0.05\n'
)
CONFIG = """name = "scaling"
steps = {steps}
data.recipe = "scaling-set.toml"
log = {{ wandb = "disabled", every_steps = 1 }}
checkpoint.every_steps = 1000
sampling = {{ configurations_per_step = {configurations} }}
"""


def start(folder: Path, run: str, core: int, walkers: int, place: tuple[int, int, int] | None) -> subprocess.Popen:
    """Start one process on one core."""
    program = "import sys; from fnqs_train.commands import train_main; sys.exit(train_main())"
    arguments = [
        sys.executable,
        "-c",
        program,
        str(folder / "scaling.toml"),
        "--output",
        str(folder / run),
        "--restart",
    ]
    if place is not None:
        process, processes, port = place
        arguments += ["--processes", str(processes), "--process", str(process), "--coordinator", f"localhost:{port}"]
    arguments += ["--set", f"sampling.walkers_per_configuration={walkers}"]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
        "OPENBLAS_NUM_THREADS": "1",
        "FNQS_CACHE": str(folder / "cache"),
    }
    return subprocess.Popen(["taskset", "-c", str(core), *arguments], env=environment, stdout=subprocess.DEVNULL)


def finish(processes: list[subprocess.Popen]) -> float:
    """Wait for all to end well; returns the processor time (s) of one, on average."""
    seconds = 0.0
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"a process ended with status {status}")
        seconds += usage.ru_utime + usage.ru_stime
    return seconds / len(processes)


def step_time(run: Path) -> tuple[float, float]:
    """Median time of a step and half the distance of the quartiles, in s."""
    times = np.array([row.get("seconds_per_step") for row in read_metrics(run)][LEFT_OUT:], float)
    low, middle, high = np.percentile(times, [25, 50, 75])
    return float(middle), float(high - low) / 2


def sent_bytes() -> int:
    """Bytes that the loopback device has sent."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split()[9])
    raise RuntimeError("no loopback device")


def least_bytes(rows: int, parameters: int, processes: int) -> dict[str, float]:
    """What must go over the wire in a step, all processes together.

    Every entry of the rows once to the process that has its column, the Gram matrix summed (each process sends and gets
    2 (P - 1)/P of it) and the direction, of which each has a P-th of the columns, gathered.
    """
    return {
        "rows": 4 * rows * parameters * (processes - 1) / processes,
        "gram": 4 * 2 * (processes - 1) * rows**2,
        "direction": 4 * parameters * (processes - 1),
        "energies": 8 * rows * (processes - 1),
    }


def main(folder: Path, processes: int, number: int, steps: int) -> int:
    """Measure and print; returns 1 if the efficiency is below 0.85."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scaling-set.toml").write_text(RECIPE.format(number=number))
    (folder / "scaling.toml").write_text(CONFIG.format(steps=steps, configurations=CONFIGURATIONS))
    cores = sorted(os.sched_getaffinity(0))[:processes]
    if len(cores) < processes:
        raise RuntimeError(f"{processes} processes need as many cores, {len(cores)} are here")

    def measure(run: str, length: int, walkers: int, shared: bool) -> tuple[int, float]:
        """Bytes sent and processor time of a process."""
        (folder / "scaling.toml").write_text(CONFIG.format(steps=length, configurations=CONFIGURATIONS))
        with socket.create_server(("localhost", 0)) as free:
            port = free.getsockname()[1]
        before = sent_bytes()
        chosen = cores if shared else cores[:1]
        places = [(i, processes, port) if shared else None for i in range(len(chosen))]
        pairs = zip(chosen, places, strict=True)
        seconds = finish([start(folder, run, core, walkers, place) for core, place in pairs])
        return sent_bytes() - before, seconds

    # The difference of two lengths leaves out what the start and the end cost.
    alone, together = (
        np.subtract(measure(run, steps, walkers, shared), measure(f"{run}-short", LEFT_OUT, walkers, shared))
        / (steps - LEFT_OUT)
        for run, walkers, shared in (("alone", WALKERS, False), ("together", processes * WALKERS, True))
    )
    (folder / "scaling.toml").write_text(CONFIG.format(steps=steps, configurations=CONFIGURATIONS))
    rounds = []
    for count in range(ROUNDS):
        if count:
            measure("alone", steps, WALKERS, shared=False)
            measure("together", steps, processes * WALKERS, shared=True)
        finish([start(folder, f"beside-{i}", core, WALKERS, None) for i, core in enumerate(cores)])
        found = {name: step_time(folder / name) for name in ("alone", "together")}
        beside = [step_time(folder / f"beside-{i}") for i in range(processes)]
        found["beside"] = (float(np.mean([middle for middle, _ in beside])), max(spread for _, spread in beside))
        print("  ".join(f"{name} {1e3 * middle:.0f} ms" for name, (middle, _) in found.items()), flush=True)
        rounds.append(found)
    times = {name: min(found[name] for found in rounds) for name in rounds[0]}
    for name, (middle, spread) in times.items():
        print(f"{name:9s} {1e3 * middle:7.1f} +- {1e3 * spread:.1f} ms a step")
    efficiency = times["alone"][0] / times["together"][0]
    print(f"efficiency from 1 to {processes} processes: {efficiency:.2f}")
    print(f"  of separate runs at the same time: {times['alone'][0] / times['beside'][0]:.2f}")
    print(f"  by processor time, {1e3 * alone[1]:.0f} and {1e3 * together[1]:.0f} ms: {alone[1] / together[1]:.2f}")
    parameters = sum(leaf.size for leaf in _leaves(restore_params(folder / "together")))
    rows = CONFIGURATIONS * WALKERS * processes
    least = least_bytes(rows, parameters, processes)
    print(f"R = {rows} rows, P = {parameters} parameters; bytes a step, all processes together:")
    for name, value in least.items():
        print(f"  {name:10s} {value / 1e6:8.3f} MB")
    total = sum(least.values())
    print(f"  least {total / 1e6:.3f} MB, sent {together[0] / 1e6:.3f} MB: {together[0] / total:.3f}")
    return int(efficiency < 0.85)


def _leaves(tree) -> list:
    return [leaf for value in tree.values() for leaf in _leaves(value)] if isinstance(tree, dict) else [tree]


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:]]
    sys.exit(main(Path(sys.argv[1]), *(numbers + [2, 16, 12][len(numbers) :])))
