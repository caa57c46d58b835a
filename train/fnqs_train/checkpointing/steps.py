"""The checkpoints of a run on the disk: which steps there are, and which of them are valid.

A step lives in RUN/checkpoints/<step>/ with the items params and optimizer, written by Orbax, walkers, plain arrays
written by all processes, meta, a JSON file, and blake2b.json, the digests of all its files. A step without digests, or
with another content, is damaged and never used.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from fnqs.errors import InputError
from fnqs_train.checkpointing.digests import find_changes
from fnqs_train.checkpointing.held import hold

FOLDER_NAME = "checkpoints"
ENERGY_KEY = "energy_per_atom"
"""Entry of meta (Ha per atom) that tells the best checkpoint."""

ATTEMPTS = 100
"""Times that the steps of a run are listed again because one was deleted meanwhile."""

SPARED = ("optimizer", "walkers")
"""Items that an evaluation does without: they may be left out of a copy."""


class CheckpointPath(NamedTuple):
    """A run folder and one of its steps."""

    run_folder: Path
    step: int

    @property
    def folder(self) -> Path:
        """Where this step's files are."""
        return self.run_folder / FOLDER_NAME / str(self.step)


def find_damage(checkpoint: CheckpointPath, *, spared: tuple[str, ...] = ()) -> list[str]:
    """Compare every file of a step with its digest; one clause for each difference, none if it is valid.

    Args:
        checkpoint: the step.
        spared: items that may be missing as a whole; what is there must be right in any case.
    """
    return find_changes(checkpoint.folder, spared)


def latest_valid(run_folder: Path, spared: tuple[str, ...] = (), *, held: bool = False) -> CheckpointPath | None:
    """Find the latest valid step; starts again when a training deletes what is looked at.

    Args:
        run_folder: of the run.
        spared: items that may be missing.
        held: keep the step from being deleted for the rest of this process, see `held`.

    Returns:
        the step, or None if nothing was ever saved.

    Raises:
        InputError: every step is damaged, or they vanish faster than they can be read.
    """
    for _ in range(ATTEMPTS):
        damaged: list[str] = []
        for step in reversed(steps_of(run_folder)):
            candidate = CheckpointPath(run_folder, step)
            try:
                there = not held or hold(candidate.folder)
                faults = find_damage(candidate, spared=spared) if there else []
            except FileNotFoundError:
                there = False
            if not there or not candidate.folder.exists():
                time.sleep(0.01)
                break
            if not faults:
                for sentence in damaged:
                    warnings.warn(sentence, stacklevel=3)
                return candidate
            damaged.append(f"checkpoint {step} is damaged and not used: {faults[0]}")
        else:
            if damaged:
                raise InputError(
                    f"{run_folder}: every checkpoint is damaged ({damaged[0]}); start the run again under another name"
                )
            return None
    raise InputError(f"{run_folder}: its checkpoints vanish faster than they can be read; wait for the training's end")


def steps_of(run_folder: Path) -> list[int]:
    """List the steps that a run folder has, valid or not, in ascending order."""
    folder = run_folder / FOLDER_NAME
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()) if folder.is_dir() else []


def read_meta(checkpoint: CheckpointPath) -> dict[str, Any]:
    """Read the JSON values saved with a step."""
    return json.loads((checkpoint.folder / "meta" / "metadata").read_text(encoding="utf-8"))


def energy_of(checkpoint: CheckpointPath) -> float:
    """Energy saved with a step, Ha per atom; infinite where there is none that is finite."""
    try:
        energy = read_meta(checkpoint).get(ENERGY_KEY)
    except (OSError, ValueError):  # a damaged step is not the best one
        return math.inf
    return float(energy) if energy is not None and math.isfinite(energy) else math.inf
