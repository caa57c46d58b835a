"""The training input as a Grain pipeline: from the store to the systems of a step, stacked.

    store, in the order of the run -> systems, by Grain's threads -> one stack for each step, prefetched

Each process reads and prepares only its share of a step: of K configurations those at ceil(K/P) consecutive places.
Where P does not divide K, the last shares go on with the first places again, so that all are of one length.
A share is cut into one part for each thread, so that all of them work for the step that is needed next.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from fnqs.configuration import Configuration
from fnqs.system import stack_systems
from fnqs_data.stream.stream import ConfigurationStream

STEPS_AHEAD = 3
"""Steps prepared ahead, so that a quick step of small cells does not wait for one of large cells."""

MOST_THREADS = 8
"""Configurations prepared at the same time, at most."""


@dataclass(frozen=True)
class StoredConfigurations:
    """Configurations of one N as they come from the store.

    Attributes:
        indices: (k,) their positions in the data set.
        configurations: cell (k, 3, 3), protons (k, N, 3) in bohr and twist (k, 3); float64.
    """

    indices: np.ndarray
    configurations: Configuration


def share_batches(
    stream: ConfigurationStream,
    prepare: Callable[[StoredConfigurations], Sequence[Any]],
    *,
    start: int,
    stop: int,
    process: int = 0,
    processes: int = 1,
) -> grain.DatasetIterator:
    """Read ahead the shares of one process in the batches of the steps from `start` to before `stop`.

    The state of the iterator is the step: open another one at the step to go on with, in any number of processes.

    Args:
        stream: which configurations meet in which step.
        prepare: makes of each configuration what is stacked, a pytree of arrays; called from several threads.
        start: first step.
        stop: step after the last one.
        process: whose share, 0 <= process < processes.
        processes: P, that share each batch.

    Returns:
        for each step the stacked share, arrays (ceil(K/P), ...) of K configurations; to be closed.
    """
    threads = max(1, min(MOST_THREADS, (os.cpu_count() or 1) // 2))  # the other half is for the step itself
    source = _Parts(stream, process, processes, threads)
    options = grain.ReadOptions(threads, prefetch_buffer_size=threads)
    parts = grain.MapDataset.source(source).slice(slice(start * source.parts, stop * source.parts))
    prepared = parts.map(prepare).to_iter_dataset(options)
    batches = prepared.batch(source.parts, drop_remainder=True, batch_fn=_stack)
    # Stacking megabytes takes milliseconds, for which the step would wait: one more thread does it.
    iterator = iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=STEPS_AHEAD))
    iterator.start_prefetch()
    return iterator


class _Parts:
    """The share of one process in each step, in so many parts: a source of Grain, read when asked for.

    It has an order of its own where Grain would shuffle (see `Bucket`). Parts may be empty.
    """

    def __init__(self, stream: ConfigurationStream, process: int, processes: int, most_parts: int):
        self.parts = min(most_parts, _share(stream.largest_batch, processes))
        self._stream, self._process, self._processes = stream, process, processes

    def __len__(self) -> int:
        return sys.maxsize // self.parts * self.parts

    def __getitem__(self, index: int) -> StoredConfigurations:
        step, part = divmod(index, self.parts)
        indices = self._stream.batch(step).indices
        rows = _share(len(indices), self._processes)
        first, last = (self._process * rows + rows * i // self.parts for i in (part, part + 1))
        here = indices[np.arange(first, last) % len(indices)]
        return StoredConfigurations(here, self._stream.dataset.configurations(here))


def _share(count: int, processes: int) -> int:
    """Round the share of each process up."""
    return -(-count // processes)


def _stack(parts: Sequence[Sequence[Any]]) -> Any:
    return stack_systems([one for part in parts for one in part])
