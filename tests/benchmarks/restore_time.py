"""How long an evaluation takes to open a checkpoint with a large population, copied elsewhere.

    python tests/benchmarks/restore_time.py FOLDER

Saves 17,500 configurations of N = 54 with 64 walkers (726 MB) and the default model's parameters, copies the run
folder, and times finding, verifying and reading the parameters: from the whole copy, and from one without optimiser and
walkers.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np

from fnqs.model_config import ModelConfig
from fnqs.precision import configure
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_params
from fnqs_train.checkpointing.saving import Checkpoints
from fnqs_train.config import DataConfig, RunConfig
from fnqs_train.loading import params_template
from fnqs_train.walkers import Population


def main(folder: Path) -> int:
    """Measure and print; returns 1 if either takes 5 s or longer."""
    configure()
    config = RunConfig(name="restore", steps=1, data=DataConfig(recipe=""), model=ModelConfig())
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), params_template(config))
    population = Population(np.full(17_500, 54), np.arange(17_500), 64)
    population.state()["n054"]["positions"].values[...] = np.random.default_rng(0).random(3, np.float32)
    shutil.rmtree(folder, ignore_errors=True)
    with Checkpoints(folder / "run") as checkpoints:
        began = time.monotonic()
        checkpoints.save(1, params, {"count": np.zeros(1)}, population.state(), {})
        held = time.monotonic() - began
        checkpoints.wait()
        print(f"save: steps held up for {held:.2f} s, on the disk after {time.monotonic() - began:.2f} s")
    slowest = 0.0
    for name, items in (("whole", ()), ("without optimiser and walkers", ("optimizer", "walkers"))):
        copy = folder / name.replace(" ", "-")
        shutil.copytree(folder / "run", copy)
        for item in items:
            shutil.rmtree(copy / "checkpoints" / "1" / item)
        began = time.monotonic()
        restore_params(resolve_checkpoint(copy), params)
        slowest = max(slowest, time.monotonic() - began)
        print(f"restored for evaluation, {name}: {time.monotonic() - began:.2f} s")
    shutil.rmtree(folder)
    return int(slowest >= 5)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
