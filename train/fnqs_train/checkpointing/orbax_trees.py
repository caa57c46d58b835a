"""Pytrees of arrays on the disk, in Orbax's format."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from fnqs.errors import InputError


def save_tree(folder: Path, tree: Any) -> None:
    """Write a pytree of numpy arrays into a new folder, as one process.

    Raises:
        Exception: whatever the storage library makes of a refusal of the system; see `system_error`.
    """
    with _quiet(), _checkpointer(ocp.StandardCheckpointHandler) as writer:
        writer.save(folder, args=ocp.args.StandardSave(tree))


def check_tree(folder: Path, tree: Any) -> None:
    """Restore what `save_tree` has just written, and compare it bit by bit.

    Raises:
        OSError: it does not come back as it was.
    """
    restored = jax.tree.leaves(restore_like(folder, tree))
    for before, after in zip(jax.tree.leaves(tree), restored, strict=True):
        if before.tobytes() != after.tobytes():
            raise OSError(errno.EIO, "what was written does not read back as it was", str(folder))


def restore_plain(folder: Path) -> Any:
    """Restore an item as numpy arrays in the nested dicts and lists that its metadata tell of."""
    with _quiet(), _checkpointer(ocp.PyTreeCheckpointHandler) as reader:
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), _metadata(reader, folder))
        return reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def restore_like(folder: Path, template: Any) -> Any:
    """Restore an item in a template's structure after comparing names, shapes and dtypes.

    Args:
        folder: of the item, in that of its checkpoint.
        template: pytree of arrays or ShapeDtypeStructs; numpy arrays come back as such, others as jax arrays.

    Raises:
        InputError: it is of another model.
    """
    with _quiet(), _checkpointer(ocp.PyTreeCheckpointHandler) as reader:
        metadata = jax.tree.leaves(_metadata(reader, folder))
        saved = {leaf.name: f"{leaf.dtype}{list(leaf.shape)}" for leaf in metadata}
        wanted = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in _named_leaves(template)}
        if saved != wanted:
            name = sorted(name for name in saved | wanted if saved.get(name) != wanted.get(name))[0]
            raise InputError(
                f"{folder.parent}: checkpoint of another model: {folder.name} {name} is "
                f"{saved.get(name, 'absent')} there and {wanted.get(name, 'absent')} here; "
                f"use the config it was trained with"
            )
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), template)
        arguments = ocp.args.PyTreeRestore(item=template, restore_args=as_numpy)
        restored = reader.restore(folder, args=arguments)
    return jax.tree.map(lambda old, new: new if isinstance(old, np.ndarray) else jnp.asarray(new), template, restored)


def leaf_names(folder: Path) -> list[str]:
    """Dotted names of the arrays that an item holds."""
    with _quiet(), _checkpointer(ocp.PyTreeCheckpointHandler) as reader:
        return [leaf.name for leaf in jax.tree.leaves(_metadata(reader, folder))]


def _metadata(reader: ocp.Checkpointer, folder: Path) -> Any:
    found: Any = reader.metadata(folder)
    return found.item_metadata.tree


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Leaves with the dotted names Orbax gives them."""
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def system_error(error: Exception) -> int | None:
    """Find the system's error number in what the storage library made of it."""
    match = re.search(r"os_error_code='(\d+)'|\[OS error (\d+)", str(error))
    return int(match.group(1) or match.group(2)) if match else None


def _checkpointer(handler: type) -> ocp.Checkpointer:
    """Make a checkpointer that works in this process alone, without waiting for others."""
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"process-{jax.process_index()}",
    )
    return ocp.Checkpointer(handler(multiprocessing_options=alone), multiprocessing_options=alone)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Orbax's log: its remarks are about layouts meant to be so, its errors are raised as well."""
    logger = logging.getLogger("absl")

    def silent(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(silent)
    try:
        yield
    finally:
        logger.removeFilter(silent)
