"""Whether the stream survives kill -9 and a change of the number of processes: random trials with true processes.

Each trial streams the same steps: 1, 2 or 4 processes (drawn anew at every start) read their parts of every
batch, log a digest of what they read and save their state; all are killed with SIGKILL at a random moment, a few
times over, and started again from the state that all have saved. Every part read, before and after the kills, must
be what an undisturbed single process reads there.

    python tests/benchmarks/stream_restart.py FOLDER [TRIALS] [SEED]

Without numbers: 50 trials, seed 0. Ends with exit code 1 if any differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from fnqs.configuration import Configuration
from fnqs_data.store.record import Record
from fnqs_data.store.store import open_dataset, write_dataset
from fnqs_data.stream.stream import Batch, ConfigurationStream

STEPS, BATCH, SAVE_EVERY, PAUSE = 120, 8, 5, 0.004
"""Steps of a run, configurations a batch, steps between two saved states, seconds a step takes at least."""


def make_set(folder: Path) -> None:
    """Write 300 configurations of N = 2, 4 and 8 in five shards."""
    rng = np.random.default_rng(0)
    records = [
        Record(
            configuration=Configuration(cell=4 * np.eye(3), protons=4 * rng.random((n, 3)), twist=rng.random(3)),
            identifier=f"r-{i}",
        )
        for i, n in enumerate(rng.choice([2, 4, 8], size=300))
    ]
    write_dataset(folder, records, shard_size=64)


def open_stream(folder: Path, process: int = 0, processes: int = 1) -> ConfigurationStream:
    """Open the stream of the trials, with weights, so that their draws are tried too."""
    dataset = open_dataset(folder)
    weights = np.where(np.arange(len(dataset)) % 3, 1.0, 0.4)
    return ConfigurationStream(
        dataset,
        np.arange(len(dataset)),
        batch_configurations=BATCH,
        seed=7,
        weights=weights,
        process=process,
        processes=processes,
    )


def digests(batch: Batch) -> list[str]:
    """Digest of each configuration with its place in the data set."""
    arrays = batch.configurations
    return [
        hashlib.blake2b(
            b"".join(np.ascontiguousarray(a[k]).tobytes() for a in (arrays.cell, arrays.protons, arrays.twist))
            + int(index).to_bytes(8, "little"),
            digest_size=16,
        ).hexdigest()
        for k, index in enumerate(batch.indices)
    ]


def work(folder: Path, run: Path, start: int, process: int, processes: int) -> None:
    """Stream as one of several processes: a line for each step, the state every few steps."""
    stream = open_stream(folder, process, processes)
    state_file = run / f"state-{start}-{process}-{processes}.json"
    with (run / f"log-{start}-{process}-{processes}.jsonl").open("a") as log:
        for step in range(start, STEPS):
            batch = stream.batch(step)
            first = stream.part(batch.number, batch.twisted).start
            log.write(json.dumps([step, first, digests(batch)]) + "\n")
            log.flush()
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == STEPS:
                temporary = state_file.with_suffix(".part")
                temporary.write_text(json.dumps(stream.state(step + 1)))
                os.replace(temporary, state_file)
            time.sleep(PAUSE)


def trial(folder: Path, run: Path, expected: list[list[str]], rng: np.random.Generator, kills: int) -> str | None:
    """Run one trial; says what differs, or None."""
    stream, start, seen = open_stream(folder), 0, [set() for _ in range(STEPS)]
    while start < STEPS:
        processes = int(rng.choice([1, 2, 4]))
        workers = [
            subprocess.Popen([sys.executable, __file__, "--work", folder, run, str(start), str(p), str(processes)])
            for p in range(processes)
        ]
        if kills:
            kills -= 1
            # Count the delay from the first line on: how long the imports take is no part of the trial.
            while not any(run.glob(f"log-{start}-*-{processes}.jsonl")):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.7 * STEPS * PAUSE))
            for worker in workers:
                worker.kill()
        for worker in workers:
            worker.wait()
        reached = []
        for process in range(processes):
            log = run / f"log-{start}-{process}-{processes}.jsonl"
            lines = log.read_text().splitlines(keepends=True) if log.exists() else []
            for step, first, found in (json.loads(line) for line in lines if line.endswith("\n")):
                if found != expected[step][first : first + len(found)]:
                    return f"step {step}, process {process} of {processes}: another content"
                seen[step].update(range(first, first + len(found)))
            state = run / f"state-{start}-{process}-{processes}.json"
            reached.append(stream.resume(json.loads(state.read_text())) if state.exists() else start)
        shutil.rmtree(run)
        run.mkdir()
        start = min(reached)
    missed = [step for step in range(STEPS) if len(seen[step]) != len(expected[step])]
    return f"steps {missed} were not read whole" if missed else None


def main(folder: Path, trials: int, seed: int, kills: int = 3) -> int:
    """Run the trials and print one line each; returns how many differ."""
    folder.mkdir(parents=True, exist_ok=True)
    data, run = folder / "restart-set", folder / "restart-run"
    bad = 0
    try:
        make_set(data)
        stream = open_stream(data)
        expected = [digests(stream.batch(step)) for step in range(STEPS)]
        rng = np.random.default_rng(seed)
        for number in range(trials):
            run.mkdir()
            finding = trial(data, run, expected, rng, kills=int(rng.integers(1, kills + 1)))
            shutil.rmtree(run)
            bad += finding is not None
            print(f"trial {number + 1}: {finding or 'identical'}", flush=True)
    finally:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)
    print(f"{trials - bad} of {trials} trials identical")
    return bad


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:7]))
    else:
        numbers = [int(text) for text in sys.argv[2:]]
        sys.exit(main(Path(sys.argv[1]), *(numbers + [50, 0][len(numbers) :])) > 0)
