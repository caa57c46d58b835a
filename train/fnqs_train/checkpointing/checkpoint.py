"""A checkpoint of any run, found by the name the user gives and read from its folder alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fnqs.errors import InputError
from fnqs_train.checkpointing.held import hold
from fnqs_train.checkpointing.orbax_trees import leaf_names, restore_like, restore_plain
from fnqs_train.checkpointing.steps import FOLDER_NAME, SPARED, CheckpointPath, find_damage, latest_valid, read_meta
from fnqs_train.models.shipped import find_shipped, shipped_models


def resolve_checkpoint(path: str | os.PathLike) -> CheckpointPath:
    """Find the checkpoint meant by a run folder (its latest valid step), a step in it, or the name of a shipped model.

    A training that still goes on does not delete it while this process lives (see `held`).

    Raises:
        InputError: there is none, or the step asked for is damaged.
    """
    path = Path(path)
    if not path.exists():
        shipped = find_shipped(path)
        if shipped is None or not shipped.exists():
            names = f" (models that come with fnqs: {', '.join(shipped_models())})" if shipped_models() else ""
            raise InputError(f"{path}: no such run folder or checkpoint; check the spelling of the path{names}")
        path = shipped
    if path.name.isdigit() and path.parent.resolve().name == FOLDER_NAME:
        chosen = CheckpointPath(path.resolve().parent.parent, int(path.name))
        faults = find_damage(chosen, spared=SPARED) if hold(chosen.folder) else ["it is being deleted"]
        if faults:
            raise InputError(f"{path}: the checkpoint is damaged ({faults[0]}); use another step of the run")
        return chosen
    run_folder = path.parent if path.resolve().name == FOLDER_NAME else path
    chosen = latest_valid(run_folder.resolve(), spared=SPARED, held=True)
    if chosen is None:
        raise InputError(f"{path}: no checkpoint here; give the folder of a run that saved one, or a step in it")
    return chosen


def restore_params(path: str | os.PathLike | CheckpointPath, template: Any = None) -> Any:
    """Restore the parameters alone, from the files of the checkpoint alone.

    Args:
        path: a run folder, a step in it, or what `resolve_checkpoint` returned.
        template: parameters of the model that will use them (arrays or ShapeDtypeStructs) to compare with.

    Returns:
        nested dict of jax arrays on the default device, in the template's structure if there is one.

    Raises:
        InputError: no or a damaged checkpoint, or one of another model.
    """
    chosen = path if isinstance(path, CheckpointPath) else resolve_checkpoint(path)
    try:
        if template is not None:
            return restore_like(chosen.folder / "params", template)
        return jax.tree.map(jnp.asarray, restore_plain(chosen.folder / "params"))
    except (OSError, ValueError) as error:
        if chosen.folder.exists():
            raise
        raise InputError(f"{chosen.folder}: deleted while it was read; give the command again") from error


def parameter_names(checkpoint: CheckpointPath) -> list[str]:
    """Dotted names of the parameters that a checkpoint holds."""
    return leaf_names(checkpoint.folder / "params")


def restore_meta(path: str | os.PathLike | CheckpointPath) -> dict[str, Any]:
    """Read the JSON values saved with a checkpoint.

    Raises:
        InputError: no or a damaged checkpoint.
    """
    return read_meta(path if isinstance(path, CheckpointPath) else resolve_checkpoint(path))
