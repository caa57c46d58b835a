"""Build a data set from a recipe: deterministic in (recipe, seed), whatever the number of processes."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fnqs.errors import InputError
from fnqs.precision import cache_folder
from fnqs_data.generate.disordered import DISORDERED
from fnqs_data.generate.draw import draw_configurations
from fnqs_data.generate.recipe import Family, Recipe, parse_recipe, read_recipe
from fnqs_data.store.manifest import text_digest
from fnqs_data.store.record import Record, decode_record, encode_record
from fnqs_data.store.resume import resume_dataset, resumed_folder
from fnqs_data.store.splits import HeldOut
from fnqs_data.store.store import Dataset, open_dataset
from fnqs_data.store.write import PARTIAL

GENERATOR_VERSION = 2
"""Raised whenever the same recipe would give other configurations."""

BLOCK = 256
"""Configurations drawn from one random stream."""

WORTH_PROCESSES = 2000
"""Fewer configurations than this are built in one process."""

BUILT_SHARD = 1024
"""Records in one file: what a kill can cost at most."""

COST_OF_DISORDER = 10.0
"""Time to draw a disordered configuration, in units of N times that of a crystal: only the time left needs it."""


@dataclass(frozen=True)
class _Block:
    """A share of one family and N, drawn from a random stream of its own."""

    family: int
    n_atoms: int
    stream: int
    first: int
    count: int


def build_recipe(
    recipe_file: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    workers: int | None = None,
    progress: bool = True,
    shard_size: int = BUILT_SHARD,
) -> Dataset:
    """Build the data set of a recipe file into a new folder, going on where a killed build of it stopped.

    Args:
        recipe_file: TOML.
        folder: must not exist yet.
        workers: processes; None takes one per core for large sets.
        progress: show a bar on stderr.
        shard_size: records in one file.

    Raises:
        InputError: for a wrong recipe, a folder that is taken, or one that another process is building.
        OSError: if the disk is full; nothing half-written stays.
    """
    recipe, text = read_recipe(recipe_file)
    blocks = plan(recipe.family)
    total = sum(block.count for block in blocks)
    if workers is None:
        workers = (os.cpu_count() or 1) if total >= WORTH_PROCESSES else 1
    columns = (TextColumn("building {task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    if progress and not console.is_terminal:  # where the bar is drawn at its end only
        print(f"building {recipe.name}, {total} configurations ...", file=sys.stderr, flush=True)
    with (
        Progress(*columns, console=console, disable=not progress) as bar,
        _mapping(workers) as apply,
    ):
        task = bar.add_task(f"{recipe.name}, {total} configurations", total=sum(_cost(recipe, b) for b in blocks))

        def records_from(position: int) -> Iterator[Record]:
            """Draw the blocks from the one that holds this record on."""
            start, first = 0, 0
            while first < len(blocks) and start + blocks[first].count <= position:
                start += blocks[first].count
                first += 1
            bar.update(task, completed=sum(_cost(recipe, block) for block in blocks[:first]))
            remaining = blocks[first:]
            for block, batch in zip(remaining, apply(_draw_block, [text] * len(remaining), remaining), strict=True):
                yield from (decode_record(data) for data in islice(batch, max(position - start, 0), None))
                start += block.count
                bar.advance(task, _cost(recipe, block))

        return resume_dataset(
            folder, records_from, key=_build_key(text), recipe=text, note=recipe.note, shard_size=shard_size
        )


def _build_key(text: str) -> str:
    """Digest of all that the configurations of a recipe depend on."""
    return hashlib.blake2b(f"generator {GENERATOR_VERSION}\n{text}".encode(), digest_size=8).hexdigest()


def _cost(recipe: Recipe, block: _Block) -> float:
    """Estimate the time to draw a block, in any unit."""
    disordered = recipe.family[block.family].phase in DISORDERED
    return block.count * (1 + COST_OF_DISORDER * block.n_atoms if disordered else 1)


def cached_dataset(recipe_file: str | os.PathLike, cache: Path | None = None) -> Dataset:
    """Open the data set of a recipe, building it into the cache first unless it is there already.

    Two processes may ask at once: one builds, the other waits for it.

    Args:
        recipe_file: TOML.
        cache: folder of data sets; None takes `datasets` in `fnqs.precision.cache_folder()`.
    """
    recipe, text = read_recipe(recipe_file)
    parent = Path(cache) if cache is not None else cache_folder() / "datasets"
    key = _build_key(text)
    target = parent / f"{recipe.name}-{key}"
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            dataset = open_dataset(target)
            if dataset.manifest.recipe_digest == text_digest(text) and len(dataset.n_atoms) == len(dataset):
                return dataset
        except InputError:
            pass  # not there, or damaged: it is a cache, so build it again
        for leftover in [target, *parent.glob(f".{target.name}{PARTIAL}*")]:
            if leftover != resumed_folder(target, key):
                shutil.rmtree(leftover, ignore_errors=True)
        return build_recipe(recipe_file, target)


def plan(families: list[Family]) -> list[_Block]:
    """Divide families into blocks; the division depends on the recipe alone."""
    blocks = []
    first: Counter[tuple[str, int]] = Counter()
    for place, family in enumerate(families):
        for n_atoms, count in shares(family).items():
            for stream, start in enumerate(range(0, count, BLOCK)):
                size = min(BLOCK, count - start)
                blocks.append(_Block(place, n_atoms, stream, first[family.phase, n_atoms], size))
                first[family.phase, n_atoms] += size
    return blocks


def shares(family: Family) -> dict[int, int]:
    """Divide the count among the values of N; fractions are rounded so that the sum is the count."""
    numbers = family.number or [2]
    weights = np.array(family.weight or [1.0] * len(numbers))
    ends = np.round(family.count * np.cumsum(weights) / weights.sum()).astype(int)
    return {n: int(c) for n, c in zip(numbers, np.diff(ends, prepend=0), strict=True) if c}


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterator]]:
    """Give the built-in `map`, or one that computes in other processes and keeps the order."""
    if workers <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let this worker end when the build is killed; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _draw_block(text: str, block: _Block) -> list[bytes]:
    """Draw and encode the records of one block."""
    recipe = parse_recipe(text)
    family = recipe.family[block.family]
    held_out = HeldOut(
        tuple(recipe.held_out.r_s),
        tuple(recipe.held_out.phases),
        tuple(recipe.held_out.temperature),
        trajectory_fraction=recipe.held_out.trajectory_fraction,
    )
    rng = np.random.default_rng([recipe.seed, block.family, block.n_atoms, block.stream])
    encoded = []
    for i, drawn in enumerate(draw_configurations(family, block.n_atoms, block.count, rng)):
        name = f"{family.phase}-n{block.n_atoms:02d}"
        record = Record(
            configuration=drawn.configuration,
            identifier=f"{name}-{block.first + i:05d}",
            phase=family.phase,
            temperature=drawn.temperature,
            method="generated",
            trajectory="" if drawn.run is None else f"{name}-{block.first:05d}-run{drawn.run:03d}",
        )
        encoded.append(encode_record(replace(record, split=held_out.split_of(record))))
    return encoded
