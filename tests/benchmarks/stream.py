"""How fast a shuffled epoch streams from disk on one core, and in how much memory, against the size of the set.

It goes through the pipeline of a training, threads and all, with the integrals left out. Each size is written as a
synthetic data set of N = 16 under FOLDER, streamed once through by a fresh process held to one core, and removed. At
2,000,000 configurations that takes 1.3 GB of disk. Writes stream.json and stream.png into FOLDER.

    python tests/benchmarks/stream.py FOLDER [SIZE ...]

Without sizes: 20,000, 200,000 and 2,000,000.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np

from fnqs.configuration import Configuration
from fnqs_data.store.record import Record
from fnqs_data.store.store import open_dataset
from fnqs_data.store.write import write_dataset
from fnqs_data.stream.pipeline import StoredConfigurations, share_batches
from fnqs_data.stream.stream import ConfigurationStream

NUMBER, BATCH = 16, 16


def synthetic(count: int) -> Iterator[Record]:
    """Yield records of random protons; the numbers do not matter, their bytes do."""
    rng = np.random.default_rng(0)
    for i in range(count):
        edge = 4.0 + rng.random()
        configuration = Configuration(
            cell=edge * np.eye(3), protons=edge * rng.random((NUMBER, 3)), twist=rng.random(3) - 0.5
        )
        yield Record(configuration=configuration, identifier=f"s-{i:08d}", phase=f"phase-{i % 20}", method="synthetic")


def stored_ones(stored: StoredConfigurations) -> list[tuple[np.ndarray, ...]]:
    """Take the place and the protons of each configuration: nothing is computed."""
    return list(zip(stored.indices, stored.configurations.protons, strict=True))


def stream_once(folder: Path) -> dict[str, float]:
    """Stream one epoch on one core; times in s, memory in MB."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    imported = _memory()
    began = time.perf_counter()
    dataset = open_dataset(folder)
    stream = ConfigurationStream(dataset, np.arange(len(dataset)), batch_configurations=BATCH, seed=1)
    stream.batch(0)
    opened = time.perf_counter() - began
    early = seen = total = 0
    began, busy = time.perf_counter(), time.process_time()
    batches = share_batches(stream, stored_ones, start=0, stop=stream.steps_per_epoch)
    for step, (indices, protons) in enumerate(batches):
        assert protons.shape == (BATCH, NUMBER, 3)
        seen += len(indices)
        total += int(indices.sum())
        if step == stream.steps_per_epoch // 10:
            early = _memory()
    seconds = time.perf_counter() - began
    batches.close()
    assert seen == len(dataset) // BATCH * BATCH
    assert len(dataset) % BATCH or total == len(dataset) * (len(dataset) - 1) // 2, "not a permutation"
    return {
        "records": len(dataset),
        "shards": len(dataset.manifest.shards),
        "open_seconds": opened,
        "epoch_seconds": seconds,
        "records_per_second": seen / seconds,
        "records_per_processor_second": seen / (time.process_time() - busy),
        "memory_after_import": imported,
        "memory_after_a_tenth": early,
        "peak_memory": _memory(),
    }


def _memory() -> float:
    """Peak resident memory so far; unlike ru_maxrss it begins anew with the program, not with its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main(folder: Path, sizes: list[int]) -> None:
    """Measure every size and write the table and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in sizes:
        target = folder / f"synthetic-{size}"
        try:
            began = time.perf_counter()
            write_dataset(target, synthetic(size))
            written = time.perf_counter() - began
            done = subprocess.run(
                [sys.executable, __file__, "--once", str(target)], capture_output=True, text=True, check=True
            )
        finally:
            shutil.rmtree(target, ignore_errors=True)
        rows.append({**json.loads(done.stdout), "write_seconds": written})
        print(json.dumps(rows[-1]), flush=True)
    (folder / "stream.json").write_text(json.dumps(rows, indent=2) + "\n")
    _draw(rows, folder / "stream.png")


def _draw(rows: list[dict[str, float]], path: Path) -> None:
    mpl.use("agg")
    import matplotlib.pyplot as plt

    sizes = [row["records"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.loglog(sizes, [row["records_per_second"] for row in rows], "o-", label="one shuffled epoch")
    left.axhline(10_000, color="gray", linestyle="--", label="wanted")
    left.set(xlabel="configurations (N = 16)", ylabel="configurations per second, one core", ylim=(3e3, None))
    left.legend()
    right.semilogx(sizes, [row["peak_memory"] for row in rows], "o-", label="peak")
    right.semilogx(sizes, [row["memory_after_import"] for row in rows], "s-", label="after the imports")
    right.axhline(1536, color="gray", linestyle="--", label="allowed")
    right.set(xlabel="configurations (N = 16)", ylabel="resident memory (MB)", ylim=(0, None))
    right.legend()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    if sys.argv[1] == "--once":
        print(json.dumps(stream_once(Path(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]] or [20_000, 200_000, 2_000_000])
