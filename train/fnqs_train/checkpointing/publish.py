"""A copy of a run that evaluates and fine-tunes like the run itself and holds nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from fnqs.cli.files import write_text_atomic
from fnqs.errors import InputError
from fnqs_train.checkpointing.digests import DIGEST_NAME, digests_of
from fnqs_train.checkpointing.steps import SPARED, CheckpointPath
from fnqs_train.config import CONFIG_NAME, RECIPE_NAME
from fnqs_train.monitoring.metrics import METRICS_NAME

KEPT_FILES = (CONFIG_NAME, RECIPE_NAME, METRICS_NAME, "model-card.md")
"""Files of a run folder that belong to the copy, where they are there."""


def publish(checkpoint: CheckpointPath, output: str | os.PathLike) -> Path:
    """Copy config, recipe, record, model card and one checkpoint without optimiser and walkers.

    Args:
        checkpoint: the step, from `resolve_checkpoint`, which has verified it.
        output: folder of the copy; must not be there yet.

    Returns:
        the folder.

    Raises:
        InputError: the folder is there already.
        OSError: it cannot be written; nothing of it is left then.
    """
    output = Path(output)
    if output.exists():
        raise InputError(f"--output {output}: is there already; give the name of a new folder")
    part = output.with_name(f".{output.name}.part")
    try:
        step = part / checkpoint.folder.relative_to(checkpoint.run_folder)
        shutil.copytree(checkpoint.folder, step, ignore=shutil.ignore_patterns(*SPARED))
        _forget_paths(step)
        for name in KEPT_FILES:
            if (file := checkpoint.run_folder / name).exists():
                shutil.copyfile(file, part / name)
        os.rename(part, output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return output


def _forget_paths(step: Path) -> None:
    """Take out of a copied checkpoint what Orbax notes of the folder it was written in."""
    digests = json.loads((step / DIGEST_NAME).read_text(encoding="utf-8"))
    notes = list(step.rglob("commit_success.txt"))
    for note in notes:
        note.write_text("Checkpoint commit was successful\n", encoding="utf-8")
    write_text_atomic(step / DIGEST_NAME, json.dumps(digests | digests_of(step, notes), indent=1))
