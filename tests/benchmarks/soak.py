"""Train for many small steps and watch memory, compilations and speed.

    python tests/benchmarks/soak.py FOLDER [steps=20000]

Prints, for ten equal parts of the run, the resident memory, compilations, threads, open files, median time and
processor time of a step, and at the end how far memory and speed have drifted from the second part to the last. The
processor time counts all threads and does not depend on what else the machine does.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np
from small_run import write_config

from fnqs.precision import configure
from fnqs_train.config import load_config
from fnqs_train.loading import load_dataset
from fnqs_train.loop import train
from fnqs_train.monitoring.metrics import MetricsRecord

PARTS = 10


def resident() -> float:
    """Resident memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(folder: Path, steps: int) -> int:
    """Run and report; returns 1 if memory grew by 2 % or more, processor time by 10 %, or anything compiled late."""
    os.environ["FNQS_CACHE"] = str(folder / "cache")
    config = load_config(write_config(folder, steps=steps, save_every=100))
    run = folder / "soak"
    shutil.rmtree(run, ignore_errors=True)
    configure()
    compilations: list[float] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if "backend_compile" in event:
            compilations.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    table, times, last, used = [], [], time.perf_counter(), time.process_time()
    write = MetricsRecord.write

    def watch(self, step, values):
        nonlocal last, used
        write(self, step, values)
        now = time.perf_counter()
        times.append(now - last)
        last = now
        if step % (steps // PARTS) == 0:
            files = len(list(Path("/proc/self/fd").iterdir()))
            threads = len(list(Path("/proc/self/task").iterdir()))
            busy = (time.process_time() - used) / (steps // PARTS)
            row = (step, resident(), len(compilations), threads, files, 1e3 * float(np.median(times)), 1e3 * busy)
            table.append(row)
            line = "step {:6d}  {:7.1f} MB  {} compilations  {} threads  {} files  {:.2f} ms, busy {:.2f} ms"
            print(line.format(*row), flush=True)
            used = time.process_time()
            times.clear()

    MetricsRecord.write = watch
    began = time.perf_counter()
    train(config, run, load_dataset(config))
    second, end = table[1], table[-1]
    memory, speed, busy = (end[i] / second[i] - 1 for i in (1, 5, 6))
    late = end[2] - table[0][2]
    print(f"{steps} steps in {time.perf_counter() - began:.0f} s; from part 2 to part {PARTS}: memory {memory:+.1%}, ")
    print(f"median time of a step {speed:+.1%}, processor time {busy:+.1%}; compilations after part 1: {late}")
    return int(memory >= 0.02 or busy >= 0.1 or late > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20000))
