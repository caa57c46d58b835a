"""The checkpoints of a run that is being trained: whole or absent, written beside the steps that go on.

Everything of a step is written into a folder beside its place, read back and compared; its digests come last, and only
then does the folder get its name. See `steps` for what is in it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fnqs.cli.files import write_text_atomic
from fnqs_train.checkpointing.digests import DIGEST_NAME, digests_of
from fnqs_train.checkpointing.held import unused
from fnqs_train.checkpointing.orbax_trees import check_tree, restore_like, save_tree, system_error
from fnqs_train.checkpointing.steps import FOLDER_NAME, CheckpointPath, energy_of, latest_valid, read_meta, steps_of
from fnqs_train.distributed.broadcast import broadcast_result
from fnqs_train.distributed.sharded_arrays import copied, read_arrays, write_arrays

PART, SHARE = ".part", "share-"
"""End of the name of a folder that is no checkpoint; beginning of that of a file saying that a share is whole."""

SHARE_SECONDS = 1200.0
"""Time that the first process waits for the walkers of the others."""


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

    A save copies the state and returns; a thread writes it, so the steps after it do not wait for the disk. At most one
    save is on its way. Every process of a run calls every method at the same step.

    Args:
        run_folder: the run's folder, the same for all processes.
        keep: latest steps kept; the one with the lowest energy is kept too.
        every_nth_kept: multiples of this step are kept as well; None: none.
    """

    def __init__(self, run_folder: str | os.PathLike, *, keep: int = 2, every_nth_kept: int | None = None):
        self.run_folder = Path(run_folder).resolve()
        self.keep = keep
        self.every_nth_kept = every_nth_kept
        self._process, self._processes = jax.process_index(), jax.process_count()
        self._latest: int = broadcast_result(self._open)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._saving: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception) -> None:
        try:
            # After a failure of the run, one of the save says nothing more.
            self.wait() if exception[0] is None else futures.wait([self._saving] if self._saving else [])
        finally:
            self._writer.shutdown()

    def save(self, step: int, params: Any, optimizer: Any, walkers: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """Copy the state for the thread that writes it, once the save before has ended.

        Args:
            step: steps done.
            params: pytree of arrays.
            optimizer: optax state, or another pytree.
            walkers: nested dict of numpy arrays and `Share`s.
            meta: JSON values; ENERGY_KEY is used to choose the best checkpoint.

        Returns:
            False if this or a later step is there already.

        Raises:
            OSError: the save before could not be written, for instance on a full disk; earlier ones are untouched.
        """
        self.wait()
        if step <= self._latest:
            return False
        items = {"params": params, "optimizer": optimizer} if self._process == 0 else {}
        # A copy on the host: the run goes on with its own.
        items = {name: jax.tree.map(lambda leaf: np.array(leaf), tree) for name, tree in items.items()}
        # Written out at once, because the caller's values may change.
        text = json.dumps(dict(meta), allow_nan=True)
        self._saving = self._writer.submit(self._write, step, items, copied(walkers), text)
        self._latest = step
        return True

    def wait(self) -> None:
        """Return when the last save is on the disk.

        Raises:
            OSError: it could not be written.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def check(self) -> None:
        """Raise what has stopped a save that has ended, without waiting for one on its way.

        Raises:
            OSError: it could not be written.
        """
        if self._saving is not None and self._saving.done():
            self.wait()

    def restore_latest(self, params: Any, optimizer: Any) -> Restored | None:
        """Restore the latest valid step; damaged later ones are set aside with a warning.

        Args:
            params: pytree with the expected structure, shapes and dtypes.
            optimizer: the same for the state of the optimiser.

        Returns:
            the state, of shared arrays this process's part, or None if nothing was ever saved.

        Raises:
            InputError: every step is damaged, or the checkpoint is of another model or optimiser.
        """
        self.wait()
        chosen = broadcast_result(self._choose)
        if chosen is None:
            return None
        self._latest = chosen
        valid = CheckpointPath(self.run_folder, chosen)
        return Restored(
            step=chosen,
            params=restore_like(valid.folder / "params", params),
            optimizer=restore_like(valid.folder / "optimizer", optimizer),
            walkers=read_arrays(valid.folder / "walkers", self._process, self._processes),
            meta=read_meta(valid),
        )

    def _open(self) -> int:
        """Make the folder, clear it of what a killed run left half-written or half-deleted; returns the latest step."""
        folder = self.run_folder / FOLDER_NAME
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in [*folder.glob(f"*{PART}"), *folder.glob("*.orbax-checkpoint-tmp*")]:
            shutil.rmtree(unfinished)
        return max(steps_of(self.run_folder), default=-1)

    def _choose(self) -> int | None:
        """Latest valid step; later ones are moved out of the way."""
        valid = latest_valid(self.run_folder)
        if valid is None:
            return None
        for step in steps_of(self.run_folder):
            if step > valid.step:
                aside = self.run_folder / f"damaged-{step}"
                shutil.rmtree(aside, ignore_errors=True)
                os.rename(CheckpointPath(self.run_folder, step).folder, aside)
        return valid.step

    def _write(self, step: int, items: Mapping[str, Any], walkers: Mapping[str, Any], meta: str) -> None:
        """Write one step, in the thread: everything into a folder beside it, digests last, then its name."""
        folder = CheckpointPath(self.run_folder, step).folder
        part = folder.with_name(folder.name + PART)
        try:
            part.mkdir(exist_ok=True)
            written = write_arrays(part / "walkers", walkers, first=self._process == 0)
            if self._process > 0:
                write_text_atomic(part / f"{SHARE}{self._process}.json", json.dumps(digests_of(part, written)))
                return
            for name, tree in items.items():
                save_tree(part / name, tree)
                check_tree(part / name, tree)
            (part / "meta").mkdir()
            write_text_atomic(part / "meta" / "metadata", meta)
            others = self._collect_shares(part)
            # Each process reads back what it wrote; those of the others have been read.
            own = [
                file for file in part.rglob("*") if file.is_file() and file.relative_to(part).as_posix() not in others
            ]
            write_text_atomic(part / DIGEST_NAME, json.dumps(others | digests_of(part, own), indent=1))
            os.rename(part, folder)
        except Exception as error:
            if self._process == 0:
                shutil.rmtree(part, ignore_errors=True)
            if (refused := system_error(error)) is not None:
                raise OSError(refused, os.strerror(refused), str(self.run_folder / FOLDER_NAME)) from error
            raise
        self._delete_old()

    def _collect_shares(self, part: Path) -> dict[str, str]:
        """Wait for the shares of the other processes; returns the digests of their files."""
        found: dict[str, str] = {}
        deadline = time.monotonic() + SHARE_SECONDS
        for process in range(1, self._processes):
            file = part / f"{SHARE}{process}.json"
            while not file.exists():
                if time.monotonic() > deadline:
                    raise OSError(
                        errno.ETIMEDOUT,
                        f"process {process} did not save its walkers in {SHARE_SECONDS:.0f} s",
                        str(part),
                    )
                time.sleep(0.02)
            found |= json.loads(file.read_text(encoding="utf-8"))
            file.unlink()
        return found

    def _delete_old(self) -> None:
        """Delete the steps no longer kept, now that a later one is whole with its digests."""
        steps = steps_of(self.run_folder)
        kept = set(steps[-self.keep :])
        if self.every_nth_kept is not None:
            kept |= {step for step in steps if step % self.every_nth_kept == 0}
        energies = {step: energy_of(CheckpointPath(self.run_folder, step)) for step in steps}
        kept.add(min(steps, key=lambda step: energies[step]))
        for step in steps:
            if step not in kept:
                folder = CheckpointPath(self.run_folder, step).folder
                leaving = folder.with_name(f"old-{step}{PART}")  # never a step that is half there
                with unused(folder) as free:
                    if free:  # or else an evaluation reads it, and it goes after a later save
                        os.rename(folder, leaving)
                        shutil.rmtree(leaving)
