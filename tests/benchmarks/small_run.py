"""A training whose steps take some ten milliseconds, for measurements of what goes on around a step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fnqs_train.checkpointing.orbax_trees import restore_plain
from fnqs_train.distributed.sharded_arrays import read_arrays
from fnqs_train.monitoring.metrics import read_metrics

CLOCKS = ("seconds_per_step", "data_wait_seconds", "elapsed_seconds")
RECIPE = 'name = "small"\n[[family]]\nphase = "bcc"\nnumber = [2]\nr_s = 1.4\ncount = 8\ndisplacement = 0.05\n'
CONFIG = """name = "small"
steps = {steps}
data.recipe = "small-set.toml"
log = {{ wandb = "disabled", every_steps = {log_every} }}
checkpoint = {{ every_steps = {save_every}, keep = 3 }}
model = {{ features = 8, vectors = 4, amplitudes = 4, radial_functions = 4, proton_rounds = 1 }}
sampling = {{ walkers_per_configuration = 8, configurations_per_step = 2, sweeps = 2, equilibration_sweeps = 20 }}
"""


def write_config(folder: Path, *, steps: int, save_every: int, log_every: int = 1) -> Path:
    """Write the config and its recipe into a folder; returns the config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small-set.toml").write_text(RECIPE)
    config = folder / "small.toml"
    config.write_text(CONFIG.format(steps=steps, save_every=save_every, log_every=log_every))
    return config


def start_training(folder: Path, run: Path, *options: str, output: Any = subprocess.DEVNULL) -> subprocess.Popen:
    """Start fnqs-train in a process of its own, with its cache in the folder."""
    program = "import sys; from fnqs_train.commands import train_main; sys.exit(train_main())"
    arguments = [sys.executable, "-c", program, str(folder / "small.toml"), "--output", str(run), *options]
    environment = os.environ | {"FNQS_CACHE": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(arguments, env=environment, stdout=output, stderr=output)


def final_state(run: Path, step: int) -> dict[str, bytes]:
    """Every array of a checkpoint by its name, and the record without what the clock says."""
    folder = run / "checkpoints" / str(step)
    state: dict[str, bytes] = {}

    def take(tree: Any, name: str) -> None:
        if isinstance(tree, dict):
            for key, value in tree.items():
                take(value, f"{name}/{key}")
        elif isinstance(tree, list | tuple):
            for key, value in enumerate(tree):
                take(value, f"{name}/{key}")
        else:
            state[name] = np.asarray(tree).tobytes()

    take(restore_plain(folder / "params"), "params")
    take(restore_plain(folder / "optimizer"), "optimizer")
    take(read_arrays(folder / "walkers"), "walkers")
    rows = [{key: row[key] for key in row if key not in CLOCKS} for row in read_metrics(run)]
    state["record"] = repr(rows).encode()
    return state
