"""Kill a training with SIGKILL again and again, flip bits in its checkpoints, and compare with one left alone.

    python tests/benchmarks/kills.py FOLDER [kills=100] [flips=20] [seed=0]

Every kill comes at a random time, some while the program starts and every other one while a checkpoint is being
written; the run is then resumed. In the end parameters, optimiser, walkers and record must equal those of the
uninterrupted run, bit for bit. Then one bit of a random file of the latest checkpoint is flipped: the damage must be
found, and the resumed run must go back to the step before and end in the same state.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from small_run import final_state, start_training, write_config

from fnqs_train.checkpointing.steps import CheckpointPath, find_damage

STEPS, SAVE_EVERY = 6000, 20
LONGEST = 1.5
"""Seconds from the first step of a process to its kill, at most."""


def latest(run: Path) -> int:
    """Step of the latest checkpoint."""
    folder = run / "checkpoints"
    steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []
    return max(steps, default=0)


def last_line(run: Path) -> int:
    """Step of the last whole line of the record."""
    record = run / "metrics.jsonl"
    lines = record.read_bytes().split(b"\n")[:-1] if record.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def finish(folder: Path, run: Path, *options: str) -> None:
    """Train to the end.

    Raises:
        RuntimeError: it does not end well.
    """
    with open(folder / "output", "wb") as output:
        code = start_training(folder, run, *options, output=output).wait()
    if code:
        raise RuntimeError(f"exit code {code}: {(folder / 'output').read_text()[-2000:]}")


def kill_once(folder: Path, run: Path, rng: np.random.Generator, in_save: bool) -> str:
    """Resume the run and kill it; says in which moment."""
    start, record = latest(run), run / "metrics.jsonl"
    old = record.stat().st_ino if record.exists() else None
    process = start_training(folder, run, *(["--resume"] if old else []))
    if rng.random() < 0.1:
        time.sleep(rng.uniform(0, 5.0))
    else:
        # The record is replaced when the run goes on, cut back to the checkpoint.
        while process.poll() is None and not (
            record.exists() and record.stat().st_ino != old and last_line(run) > start
        ):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, LONGEST))
        end = time.monotonic() + 5
        while in_save and time.monotonic() < end and not list((run / "checkpoints").glob("[0-9]*.part")):
            pass
        time.sleep(rng.uniform(0, 0.02) if in_save else 0)
    process.kill()
    process.wait()
    parts = [entry.name for entry in (run / "checkpoints").glob("*.part")] if run.exists() else []
    return f"in the middle of {parts[0]}" if parts else "between saves"


def flip(file: Path, rng: np.random.Generator) -> None:
    """Flip one random bit of a file."""
    data = bytearray(file.read_bytes())
    place = int(rng.integers(8 * len(data)))
    data[place // 8] ^= 1 << place % 8
    file.write_bytes(data)


def main(folder: Path, kills: int, flips: int, seed: int) -> int:
    """Run both trials; returns the number of findings."""
    rng = np.random.default_rng(seed)
    write_config(folder, steps=STEPS, save_every=SAVE_EVERY)
    whole, run = folder / "whole", folder / "killed"
    for old in (whole, run):
        shutil.rmtree(old, ignore_errors=True)
    began = time.monotonic()
    finish(folder, whole)
    expected = final_state(whole, STEPS)
    print(f"uninterrupted: {STEPS} steps in {time.monotonic() - began:.0f} s", flush=True)
    during_saves = 0
    for number in range(1, kills + 1):
        how = kill_once(folder, run, rng, in_save=bool(number % 2))
        during_saves += "middle" in how
        print(f"kill {number}: {how}, latest checkpoint {latest(run)}", flush=True)
    reached = latest(run)
    finish(folder, run, "--resume")
    different = [name for name, value in expected.items() if final_state(run, STEPS).get(name) != value]
    print(
        f"{kills} kills, {during_saves} during a save, the last after step {reached}: differences {different or 'none'}"
    )
    findings = len(different)
    missed = 0
    for number in range(1, flips + 1):
        trial = folder / "flipped"
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(run, trial)
        chosen = CheckpointPath(trial, STEPS)
        files = sorted(file for file in chosen.folder.rglob("*") if file.is_file() and file.stat().st_size)
        file = files[int(rng.integers(len(files)))]
        flip(file, rng)
        found = bool(find_damage(chosen))
        finish(folder, trial, "--resume", "--set", f"steps={STEPS}")
        aside = (trial / f"damaged-{STEPS}").is_dir()
        same = final_state(trial, STEPS) == expected
        missed += not (found and aside and same)
        where = file.relative_to(chosen.folder)
        print(f"flip {number} in {where}: found {found}, set aside {aside}, same end {same}", flush=True)
    print(f"{flips} flips, {missed} missed")
    return findings + missed


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:]]
    sys.exit(main(Path(sys.argv[1]), *(numbers + [100, 20, 0][len(numbers) :])) > 0)
