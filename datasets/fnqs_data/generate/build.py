"""Build a data set from a recipe: deterministic in (recipe, seed), whatever the number of processes."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fnqs.errors import InputError
from fnqs.precision import cache_folder
from fnqs_data.generate.draw import draw_configurations
from fnqs_data.generate.recipe import Family, parse_recipe, read_recipe
from fnqs_data.record import Record, decode_record, encode_record
from fnqs_data.splits import HeldOut
from fnqs_data.store import PARTIAL, Dataset, open_dataset, write_dataset

GENERATOR_VERSION = 1
"""Raised whenever the same recipe would give other configurations."""

BLOCK = 256
"""Configurations drawn from one random stream."""

WORTH_PROCESSES = 2000
"""Fewer configurations than this are built in one process."""


@dataclass(frozen=True)
class _Block:
    """A share of one family and N, drawn from a random stream of its own."""

    family: int
    number: int
    stream: int
    first: int
    count: int


def build_recipe(
    recipe_file: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Dataset:
    """Build the data set of a recipe file into a new folder.

    Args:
        recipe_file: TOML.
        folder: must not exist yet.
        workers: processes; None takes one per core for large sets.
        progress: show a bar on stderr.

    Raises:
        InputError: for a wrong recipe or a folder that is taken.
        OSError: if the disk is full; nothing half-written stays.
    """
    recipe, text = read_recipe(recipe_file)
    blocks = plan(recipe.family)
    total = sum(block.count for block in blocks)
    if workers is None:
        workers = (os.cpu_count() or 1) if total >= WORTH_PROCESSES else 1
    with _encoded_blocks(text, blocks, workers) as batches:
        columns = (
            TextColumn("building {task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
            followed = bar.track(batches, total=len(blocks), description=f"{recipe.name}, {total} configurations")
            records = (decode_record(data) for batch in followed for data in batch)
            return write_dataset(folder, records, recipe=text, note=recipe.note)


def cached_dataset(recipe_file: str | os.PathLike, cache: Path | None = None) -> Dataset:
    """Open the data set of a recipe, building it into the cache first unless it is there already.

    Two processes may ask at once: one builds, the other waits for it.

    Args:
        recipe_file: TOML.
        cache: folder of data sets; None takes `datasets` in `fnqs.precision.cache_folder()`.
    """
    recipe, text = read_recipe(recipe_file)
    parent = Path(cache) if cache is not None else cache_folder() / "datasets"
    identity = f"generator {GENERATOR_VERSION}\n{text}".encode()
    target = parent / f"{recipe.name}-{hashlib.blake2b(identity, digest_size=8).hexdigest()}"
    recipe_digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            dataset = open_dataset(target)
            if dataset.manifest.recipe_digest == recipe_digest and len(dataset.numbers) == len(dataset):
                return dataset
        except InputError:
            pass  # not there, or damaged: it is a cache, so build it again
        for leftover in [target, *parent.glob(f".{target.name}{PARTIAL}*")]:
            shutil.rmtree(leftover, ignore_errors=True)
        return build_recipe(recipe_file, target)


def plan(families: list[Family]) -> list[_Block]:
    """Divide families into blocks; the division depends on the recipe alone."""
    blocks = []
    first: Counter[tuple[str, int]] = Counter()
    for place, family in enumerate(families):
        for number, count in shares(family).items():
            for stream, start in enumerate(range(0, count, BLOCK)):
                size = min(BLOCK, count - start)
                blocks.append(_Block(place, number, stream, first[family.phase, number], size))
                first[family.phase, number] += size
    return blocks


def shares(family: Family) -> dict[int, int]:
    """Divide the count among the values of N; fractions are rounded so that the sum is the count."""
    numbers = family.number or [2]
    weights = np.array(family.weight or [1.0] * len(numbers))
    ends = np.round(family.count * np.cumsum(weights) / weights.sum()).astype(int)
    return {n: int(c) for n, c in zip(numbers, np.diff(ends, prepend=0), strict=True) if c}


@contextmanager
def _encoded_blocks(text: str, blocks: list[_Block], workers: int) -> Iterator[Iterator[list[bytes]]]:
    """Give the encoded records of every block, in order, computed here or in other processes."""
    if workers <= 1:
        yield (_draw_block(text, block) for block in blocks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool.map(_draw_block, [text] * len(blocks), blocks)
    finally:
        pool.shutdown(cancel_futures=True)


def _draw_block(text: str, block: _Block) -> list[bytes]:
    """Draw and encode the records of one block."""
    recipe = parse_recipe(text)
    family = recipe.family[block.family]
    held_out = HeldOut(
        tuple(recipe.held_out.density),
        tuple(recipe.held_out.phases),
        tuple(recipe.held_out.temperature),
        trajectory_fraction=recipe.held_out.trajectory_fraction,
    )
    rng = np.random.default_rng([recipe.seed, block.family, block.number, block.stream])
    encoded = []
    for i, (configuration, temperature) in enumerate(draw_configurations(family, block.number, block.count, rng)):
        record = Record(
            configuration=configuration,
            identifier=f"{family.phase}-n{block.number:02d}-{block.first + i:05d}",
            phase=family.phase,
            temperature=temperature,
            method="generated",
        )
        encoded.append(encode_record(replace(record, split=held_out.split_of(record))))
    return encoded
