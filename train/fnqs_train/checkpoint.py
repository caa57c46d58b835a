"""Checkpoints of a run: whole or absent, verified by digest, readable from the folder alone.

A step lives in RUN/checkpoints/<step>/ with the items params, optimizer, walkers and meta, written by Orbax,
and blake2b.json, the digests of all its files, written last. A step without that file, or with another
content, is damaged and never used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from fnqs.errors import InputError
from fnqs.files import write_text_whole

FOLDER_NAME = "checkpoints"
DIGEST_NAME = "blake2b.json"
ENERGY_KEY = "energy_per_atom"
"""Entry of meta (Ha per atom) that tells the best checkpoint."""


class CheckpointPath(NamedTuple):
    """A run folder and one of its steps."""

    run_folder: Path
    step: int

    @property
    def folder(self) -> Path:
        """Where this step's files are."""
        return self.run_folder / FOLDER_NAME / str(self.step)


@dataclass(frozen=True)
class Restored:
    """Everything a run needs to go on.

    Attributes:
        step: steps done when it was saved.
        params: parameters, as jax arrays on the default device.
        optimizer: state of the optimiser, in the structure of the template.
        walkers: numpy arrays on the host.
        meta: JSON values.
    """

    step: int
    params: Any
    optimizer: Any
    walkers: dict[str, np.ndarray]
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run that is being trained; use as a context manager.

    Args:
        run_folder: the run's folder.
        keep: latest steps kept; the one with the lowest energy is kept too.
        every_nth_kept: multiples of this step are kept as well; None: none.
    """

    def __init__(self, run_folder: str | os.PathLike, *, keep: int = 2, every_nth_kept: int | None = None):
        self.run_folder = Path(run_folder).resolve()
        self.keep = keep
        self.every_nth_kept = every_nth_kept
        self._manager = self._open()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception) -> None:
        self._manager.close()

    def save(
        self, step: int, params: Any, optimizer: Any, walkers: Mapping[str, np.ndarray], meta: dict[str, Any]
    ) -> bool:
        """Save one step and delete those no longer kept.

        Args:
            step: steps done so far.
            params: pytree of arrays.
            optimizer: pytree of arrays.
            walkers: host arrays, none of size zero.
            meta: JSON values; its "energy_per_atom" (Ha), where there is one, tells the best checkpoint.

        Returns:
            False if this step is there already.

        Raises:
            OSError: it cannot be written, for instance on a full disk; earlier checkpoints are untouched.
        """
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            optimizer=ocp.args.StandardSave(optimizer),
            walkers=ocp.args.StandardSave(dict(walkers)),
            meta=ocp.args.JsonSave(meta),
        )
        try:
            with _quiet():
                saved = self._manager.save(step, args=items)
            if saved and jax.process_index() == 0:
                _write_digests(CheckpointPath(self.run_folder, step).folder)
        except Exception as error:
            self._discard(step)
            if (refused := _system_error(error)) is not None:
                raise OSError(refused, os.strerror(refused), str(self.run_folder / FOLDER_NAME)) from error
            raise
        if saved:
            self._delete_old()
        return saved

    def restore_latest(self, params: Any, optimizer: Any) -> Restored | None:
        """Restore the latest sound step; damaged later ones are set aside with a warning.

        Args:
            params: pytree with the expected structure, shapes and dtypes.
            optimizer: the same for the state of the optimiser.

        Returns:
            the state, or None if nothing was ever saved.

        Raises:
            InputError: every step is damaged, or the checkpoint is of another model or optimiser.
        """
        steps = _steps(self.run_folder)
        sound = _latest_sound(self.run_folder)
        if sound is None:
            return None
        damaged = [step for step in steps if step > sound.step]
        if damaged and jax.process_index() == 0:
            for step in damaged:
                source = CheckpointPath(self.run_folder, step).folder
                shutil.rmtree(self.run_folder / f"damaged-{step}", ignore_errors=True)
                os.rename(source, self.run_folder / f"damaged-{step}")
            self._manager.close()
            self._manager = self._open()
        return Restored(
            step=sound.step,
            params=_restore_like(sound, "params", params),
            optimizer=_restore_like(sound, "optimizer", optimizer),
            walkers=_restore(sound, "walkers"),
            meta=_read_meta(sound),
        )

    def _open(self) -> ocp.CheckpointManager:
        folder = self.run_folder / FOLDER_NAME
        folder.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            for unfinished in folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(unfinished)
        options = ocp.CheckpointManagerOptions(
            enable_async_checkpointing=False, preservation_policy=preservation_policy.PreserveAll()
        )
        with _quiet():
            return ocp.CheckpointManager(folder, options=options)

    def _delete_old(self) -> None:
        """Delete the steps no longer kept, now that a later one is whole with its digests."""
        if jax.process_index() != 0:
            return
        steps = _steps(self.run_folder)
        kept = set(steps[-self.keep :])
        if self.every_nth_kept is not None:
            kept |= {step for step in steps if step % self.every_nth_kept == 0}
        energies = {step: _energy(CheckpointPath(self.run_folder, step)) for step in steps}
        kept.add(min(steps, key=lambda step: energies[step]))
        with _quiet():
            for step in steps:
                if step not in kept:
                    self._manager.delete(step)

    def _discard(self, step: int) -> None:
        """Remove what a failed save left, finished or not."""
        for leftover in (self.run_folder / FOLDER_NAME).glob(f"{step}*"):
            if re.fullmatch(rf"{step}(\..*)?", leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)


def resolve_checkpoint(path: str | os.PathLike) -> CheckpointPath:
    """Find the checkpoint meant by a run folder (its latest sound step) or by a step in it.

    Raises:
        InputError: there is none, or the step asked for is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such run folder or checkpoint; check the spelling of the path")
    if path.name.isdigit() and path.parent.resolve().name == FOLDER_NAME:
        chosen = CheckpointPath(path.resolve().parent.parent, int(path.name))
        faults = find_damage(chosen)
        if faults:
            raise InputError(f"{path}: the checkpoint is damaged ({faults[0]}); use another step of the run")
        return chosen
    run_folder = path.parent if path.resolve().name == FOLDER_NAME else path
    chosen = _latest_sound(run_folder.resolve())
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
    if template is not None:
        return _restore_like(chosen, "params", template)
    return jax.tree.map(jnp.asarray, _restore(chosen, "params"))


def restore_meta(path: str | os.PathLike | CheckpointPath) -> dict[str, Any]:
    """Read the JSON values saved with a checkpoint.

    Raises:
        InputError: no or a damaged checkpoint.
    """
    return _read_meta(path if isinstance(path, CheckpointPath) else resolve_checkpoint(path))


def find_damage(checkpoint: CheckpointPath) -> list[str]:
    """Compare every file of a step with its digest; one clause for each difference, none if it is sound."""
    try:
        expected = json.loads((checkpoint.folder / DIGEST_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [f"{DIGEST_NAME} is missing, so it was not saved to the end"]
    except ValueError:
        return [f"{DIGEST_NAME} is not readable"]
    found = _digests(checkpoint.folder)
    return (
        [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
        + [f"{name} does not belong to it" for name in sorted(found.keys() - expected.keys())]
        + [f"{name} has changed" for name in sorted(expected) if found.get(name, expected[name]) != expected[name]]
    )


def _latest_sound(run_folder: Path) -> CheckpointPath | None:
    damaged: list[str] = []
    for step in reversed(_steps(run_folder)):
        candidate = CheckpointPath(run_folder, step)
        faults = find_damage(candidate)
        if not faults:
            for sentence in damaged:
                warnings.warn(sentence, stacklevel=3)
            return candidate
        damaged.append(f"checkpoint {step} is damaged and not used: {faults[0]}")
    if damaged:
        raise InputError(
            f"{run_folder}: every checkpoint is damaged ({damaged[0]}); start the run again under another name"
        )
    return None


def _steps(run_folder: Path) -> list[int]:
    folder = run_folder / FOLDER_NAME
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()) if folder.is_dir() else []


def _digests(folder: Path) -> dict[str, str]:
    result = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != DIGEST_NAME:
            with open(file, "rb") as stream:
                digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
            result[file.relative_to(folder).as_posix()] = digest.hexdigest()
    return result


def _write_digests(folder: Path) -> None:
    write_text_whole(folder / DIGEST_NAME, json.dumps(_digests(folder), indent=1))


def _read_meta(checkpoint: CheckpointPath) -> dict[str, Any]:
    with _quiet():
        reader = ocp.Checkpointer(ocp.JsonCheckpointHandler())
        return reader.restore(checkpoint.folder / "meta")


def _energy(checkpoint: CheckpointPath) -> float:
    """Energy saved with a step, Ha per atom; infinite where there is none that is finite."""
    try:
        energy = _read_meta(checkpoint).get(ENERGY_KEY)
    except (OSError, ValueError):  # a damaged step is not the best one
        return math.inf
    return float(energy) if energy is not None and math.isfinite(energy) else math.inf


def _restore(checkpoint: CheckpointPath, item: str) -> Any:
    """Restore an item as numpy arrays in the nested dicts and lists that its metadata tell of."""
    with _quiet():
        reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        tree = _metadata(reader, checkpoint, item)
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(checkpoint.folder / item, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def _restore_like(checkpoint: CheckpointPath, item: str, template: Any) -> Any:
    """Restore an item in a template's structure after comparing names, shapes and dtypes."""
    with _quiet():
        reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        metadata = jax.tree.leaves(_metadata(reader, checkpoint, item))
        saved = {leaf.name: f"{leaf.dtype}{list(leaf.shape)}" for leaf in metadata}
        wanted = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in _named_leaves(template)}
        if saved != wanted:
            name = sorted(name for name in saved | wanted if saved.get(name) != wanted.get(name))[0]
            raise InputError(
                f"{checkpoint.folder}: checkpoint of another model: {item} {name} is "
                f"{saved.get(name, 'absent')} there and {wanted.get(name, 'absent')} here; "
                f"use the config it was trained with"
            )
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), template)
        arguments = ocp.args.PyTreeRestore(item=template, restore_args=as_numpy)
        restored = reader.restore(checkpoint.folder / item, args=arguments)
    return jax.tree.map(lambda old, new: new if isinstance(old, np.ndarray) else jnp.asarray(new), template, restored)


def _metadata(reader: ocp.Checkpointer, checkpoint: CheckpointPath, item: str) -> Any:
    found: Any = reader.metadata(checkpoint.folder / item)
    return found.item_metadata.tree


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Leaves with the dotted names Orbax gives them."""
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _system_error(error: Exception) -> int | None:
    """Find the system's error number in what the storage library made of it."""
    match = re.search(r"os_error_code='(\d+)'|\[OS error (\d+)", str(error))
    return int(match.group(1) or match.group(2)) if match else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Orbax's log: its remarks are about layouts meant to be so, its errors are raised as well."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
