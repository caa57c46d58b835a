"""Whether the training input survives kill -9 and a change of the number of processes: trials with true processes.

    python tests/benchmarks/stream_restart.py FOLDER [TRIALS] [SEED]
    python tests/benchmarks/stream_restart.py FOLDER --epoch DATASET [K] [--without-integrals]

Each trial takes the same steps: 1, 2 or 4 processes (drawn anew at every start) open the training input as a training
does, take the systems of every step, log a digest of each and save the step; all are killed with SIGKILL at a random
moment, a few times over, and started again from the step that all have saved. Everything taken, before and after the
kills, must be what make_system gives for the records that the stream names, in their order, bit for bit.

With --epoch, one epoch over the split "train" of a data set with K configurations a step: in 1, 2 and 4 processes, each
killed twice, and once with the number of processes changed by every kill. Every configuration must come once, but for
those that are left over where K does not divide how many there are of one N (with K = 1, as without it, none is).
Without integrals a step holds the configurations only, and takes a hundredth of the time.

Without numbers: 50 trials, seed 0. Ends with exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from free_port import free_port

from fnqs.cli.command_line import run_command
from fnqs.configuration import Configuration
from fnqs.model_config import ModelConfig
from fnqs.precision import configure
from fnqs.system import make_system
from fnqs_data.store.record import Record
from fnqs_data.store.store import open_dataset
from fnqs_data.store.write import write_dataset
from fnqs_data.stream.pipeline import StoredConfigurations
from fnqs_data.stream.prepared_systems import PreparedSystems
from fnqs_data.stream.stream import ConfigurationStream
from fnqs_train.distributed.processes import Place
from fnqs_train.distributed.session import distributed_session
from fnqs_train.distributed.sharding import make_mesh
from fnqs_train.distributed.watchdog import LOST
from fnqs_train.training_input import training_input

STEPS, BATCH, PAUSE = 60, 8, 0.004
"""Steps of a trial, configurations in each, seconds a step takes at least."""

MODEL = ModelConfig(s_exponents=(0.8,), p_exponents=())
"""As little as a model can have: its integrals depend on every proton all the same."""

LONGEST, LONGEST_STEP = 200.0, 1.0
"""Seconds that a start, and each of its steps, may take; each process has said before where its threads are."""

Steps = dict[int, list[str]]
"""Of every step the digests of its configurations, in order."""


def make_set(folder: Path) -> None:
    """Write 300 configurations of N = 2, 4 and 8 in five shards."""
    rng = np.random.default_rng(0)
    places = 2.0 * np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    records = [
        Record(
            configuration=Configuration(
                cell=4.0 * np.eye(3),
                protons=places[:n] + rng.normal(scale=0.1, size=(n, 3)),
                twist=np.zeros(3) if i % 4 else 0.3 * rng.random(3),
            ),
            identifier=f"r-{i}",
        )
        for i, n in enumerate(rng.choice([2, 4, 8], size=300))
    ]
    write_dataset(folder, records, shard_size=64)


def open_stream(folder: Path, batch: int) -> ConfigurationStream:
    """Open the stream of a data set: with weights, so that draws are tried too, unless a whole epoch is asked for."""
    dataset = open_dataset(folder)
    indices = dataset.where(split="train")
    weights = np.where(np.arange(len(indices)) % 3, 1.0, 0.4) if len(indices) == 300 else None
    return ConfigurationStream(dataset, indices, batch_configurations=batch, seed=7, weights=weights)


class Task(NamedTuple):
    """What all processes of a run are told.

    Attributes:
        data: folder of the data set.
        run: folder for logs and states.
        batch: K.
        stop: step after the last one.
        bare: without integrals.
    """

    data: Path
    run: Path
    batch: int
    stop: int
    bare: bool = False


def longest(task: Task) -> float:
    """Seconds that a start may take."""
    return LONGEST + LONGEST_STEP * task.stop


class Bare(PreparedSystems):
    """Leaves the integrals out: the configurations themselves take the place of their systems."""

    def __call__(self, stored: StoredConfigurations) -> list[Any]:
        """Return each configuration."""
        return [jax.tree.map(lambda leaf, k=k: leaf[k], stored.configurations) for k in range(len(stored.indices))]


def digests(indices: np.ndarray, systems: Any) -> list[str]:
    """Digest every configuration of a step: its place in the data set and all arrays of its system."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(systems)]
    return [
        hashlib.blake2b(
            b"".join([int(index).to_bytes(8, "little"), *(leaf[k].tobytes() for leaf in leaves)]), digest_size=8
        ).hexdigest()
        for k, index in enumerate(indices)
    ]


def expected_steps(stream: ConfigurationStream, steps: Iterable[int], bare: bool = False) -> Steps:
    """Work out without any of the pipeline what the steps must hold."""
    found = {}
    for step in steps:
        indices = stream.batch(step).indices
        configurations = [record.configuration for record in stream.dataset.read(indices)]
        systems = configurations if bare else [make_system(one, MODEL) for one in configurations]
        found[step] = digests(indices, jax.tree.map(lambda *leaves: np.stack(leaves), *systems))
    return found


def work(task: Task, start: int, place: Place) -> int:
    """Take the steps as one process of a training; log each, and save now and then what a checkpoint knows of them."""
    configure()
    faulthandler.dump_traceback_later(longest(task) - 10)
    state_file, log_file = (task.run / f"{name}-{place.process}.jsonl" for name in ("state", "log"))
    save_every = max(1, task.stop // 25)
    with distributed_session("restart", place, seconds=300), log_file.open("a") as log:
        stream, mesh = open_stream(task.data, task.batch), make_mesh(place.processes)
        for state in task.run.glob("start.json"):
            stream.check_resume(json.loads(state.read_text())["fingerprint"], task.run)
        systems = (Bare if task.bare else PreparedSystems)(MODEL, keep_bytes=10_000_000)
        with training_input(stream, systems, mesh, start=start, stop=task.stop) as batches:
            for step, (turn, found) in enumerate(batches, start):
                log.write(json.dumps([step, digests(turn.indices, found)]) + "\n")
                log.flush()
                if (step + 1) % save_every == 0 or step + 1 == task.stop:
                    temporary = state_file.with_suffix(".part")
                    temporary.write_text(json.dumps({"step": step + 1, "fingerprint": stream.fingerprint}))
                    os.replace(temporary, state_file)
                time.sleep(0 if task.bare else PAUSE)
    return 0


def start_workers(task: Task, start: int, processes: int) -> list[subprocess.Popen]:
    """Start the processes of a run."""
    port = free_port()
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1",
        "FNQS_CACHE": str(task.run.parent / "cache"),
    }
    told = [str(task.data), str(task.run), *(str(int(number)) for number in (*task[2:], start))]
    return [
        subprocess.Popen(
            [sys.executable, __file__, "--work", *told, str(process), str(processes), str(port)],
            env=environment,
            stdout=(task.run / f"said-{process}").open("wb"),
            stderr=subprocess.STDOUT,
        )
        for process in range(processes)
    ]


def take_steps(task: Task, kill_after: list[int], processes: list[int]) -> Steps:
    """Take all steps, killed so many logged steps after each start; the number of processes is the next of the list.

    Raises:
        RuntimeError: a process failed, or two of them, or two starts, took different things for a step.
    """
    seen: Steps = {}
    start = 0
    for count, kill in zip(processes, [*kill_after, None], strict=True):
        workers = start_workers(task, start, count)
        logs = [task.run / f"log-{process}.jsonl" for process in range(count)]
        sound, end = (0,) if kill is None else (0, -signal.SIGKILL, LOST), time.monotonic() + longest(task)
        try:
            while any(worker.poll() is None for worker in workers):
                if kill is not None and logs[0].exists() and logs[0].read_bytes().count(b"\n") >= kill:
                    break
                failed = [process for process, worker in enumerate(workers) if worker.poll() not in (None, *sound)]
                if failed or time.monotonic() > end:
                    said = [f"process {i}: {(task.run / f'said-{i}').read_text()}" for i in failed or range(count)]
                    what = "failed" if failed else f"not at its end after {longest(task):.0f} s"
                    raise RuntimeError(f"{count} processes from step {start}: {what}\n" + "\n".join(said))
                time.sleep(0.01)
        finally:
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.wait()
        reached = []
        for process, log in enumerate(logs):
            lines = log.read_text().splitlines(keepends=True) if log.exists() else []
            for step, found in (json.loads(line) for line in lines if line.endswith("\n")):
                if seen.setdefault(step, found) != found:
                    raise RuntimeError(f"step {step}, process {process} of {count}: another content")
            state = task.run / f"state-{process}.jsonl"
            reached.append(json.loads(state.read_text()) if state.exists() else {"step": start})
        for file in task.run.iterdir():
            file.unlink()
        last = min(reached, key=lambda state: state["step"])
        if "fingerprint" in last:
            (task.run / "start.json").write_text(json.dumps(last))
        start = last["step"]
        if start == task.stop:
            break
    return seen


def difference(seen: Steps, expected: Steps) -> str:
    """Say where two sequences of steps differ; empty if nowhere."""
    wrong = [step for step in expected if seen.get(step) != expected[step]]
    return f"steps {wrong[:8]} are missing or differ" if wrong or len(seen) != len(expected) else ""


def random_trials(folder: Path, trials: int, seed: int) -> int:
    """Run the trials and print one line each; returns how many differ."""
    data, run = folder / "restart-set", folder / "restart-run"
    bad = 0
    try:
        make_set(data)
        expected = expected_steps(open_stream(data, BATCH), range(STEPS))
        rng = np.random.default_rng(seed)
        for number in range(trials):
            run.mkdir()
            kills = rng.integers(1, STEPS, size=int(rng.integers(1, 4))).tolist()
            processes = rng.choice([1, 2, 4], size=len(kills) + 1).tolist()
            try:
                finding = difference(take_steps(Task(data, run, BATCH, STEPS), kills, processes), expected)
            except RuntimeError as error:
                finding = str(error)
            shutil.rmtree(run)
            bad += bool(finding)
            print(f"trial {number + 1}, processes {processes}: {finding or 'identical'}", flush=True)
    finally:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)
    print(f"{trials - bad} of {trials} trials identical")
    return bad


def whole_epoch(folder: Path, data: Path, batch: int, bare: bool) -> int:
    """Take one epoch in several ways and compare; returns how many differ."""
    stream = open_stream(data, batch)
    task = Task(data, folder / "restart-run", batch, stream.steps_per_epoch, bare)
    began = time.monotonic()
    expected = expected_steps(stream, range(task.stop), bare)
    visits = Counter(int(index) for step in range(task.stop) for index in stream.batch(step).indices)
    numbers = stream.dataset.n_atoms[stream.dataset.where(split="train")]
    over = sum(int(count) % batch for count in np.unique(numbers, return_counts=True)[1])
    bad = int(set(visits.values()) != {1} or len(visits) + over != len(numbers))
    print(f"{len(numbers)} configurations, {task.stop} steps of {batch}: {len(visits)} come once, {over} are left over")
    print(f"one after the other in {time.monotonic() - began:.0f} s", flush=True)
    rng = np.random.default_rng(0)
    for processes in ([1, 1, 1], [2, 2, 2], [4, 4, 4], [1, 4, 2]):
        shutil.rmtree(task.run, ignore_errors=True)
        task.run.mkdir(parents=True)
        began = time.monotonic()
        kills = rng.integers(task.stop // 8, task.stop // 3, size=2).tolist()
        finding = difference(take_steps(task, kills, processes), expected)
        bad += bool(finding)
        print(
            f"processes {processes}, killed {kills} steps after their start: {finding or 'identical'}, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
    shutil.rmtree(task.run)
    return bad


def main() -> int:
    """Choose by the command line; returns 1 if anything differs."""
    if sys.argv[1] == "--work":
        batch, stop, bare, start, process, processes, port = [int(text) for text in sys.argv[4:]]
        task = Task(Path(sys.argv[2]), Path(sys.argv[3]), batch, stop, bool(bare))
        return work(task, start, Place(process, processes, "localhost", port))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("numbers", type=int, nargs="*")
    parser.add_argument("--epoch", type=Path, metavar="DATASET")
    parser.add_argument("--without-integrals", action="store_true")
    options = parser.parse_intermixed_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    configure()
    if options.epoch:
        (batch,) = options.numbers or [1]
        return int(whole_epoch(options.folder, options.epoch, batch, options.without_integrals) > 0)
    trials, seed = options.numbers + [50, 0][len(options.numbers) :]
    return int(random_trials(options.folder, trials, seed) > 0)


if __name__ == "__main__":
    sys.exit(run_command("stream_restart", main))
