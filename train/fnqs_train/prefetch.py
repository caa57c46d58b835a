"""Batches ready for a step: the host prepares the next ones while the device works on the present one."""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from fnqs.model_config import ModelConfig
from fnqs.system import System, make_system, stack_systems
from fnqs_data.stream.stream import Batch, ConfigurationStream
from fnqs_train.chunks import MemoryConfig
from fnqs_train.schedule import Schedule

AHEAD = 3
"""Batches prepared ahead of the step, so that a quick step of small cells does not wait for one of large cells."""


MOST_MAKERS = 8
"""Configurations integrated at the same time, at most."""


class PreparedBatches:
    """Stream batches with their stacked systems, some ahead; use as a context manager.

    Args:
        stream: of configurations.
        model: sizes of the wave function.
        schedule: chooses the configurations of a step; None leaves it to the stream.
        keep_bytes: host memory (bytes) for systems that will be visited again.
    """

    def __init__(
        self,
        stream: ConfigurationStream,
        model: ModelConfig,
        schedule: Schedule | None = None,
        keep_bytes: int = MemoryConfig.prepared_bytes,
    ):
        self._stream, self._model, self._schedule, self._keep_bytes = stream, model, schedule, keep_bytes
        self._pool = ThreadPoolExecutor(max_workers=1)
        # Half of the cores at most: the other half is for what an accelerator is waiting for.
        self._makers = ThreadPoolExecutor(max_workers=max(1, min(MOST_MAKERS, (os.cpu_count() or 1) // 2)))
        self._next: deque[tuple[int, Future]] = deque()
        self._cache: OrderedDict[int, System] = OrderedDict()
        self._cached_bytes = 0

    def __enter__(self) -> PreparedBatches:
        return self

    def __exit__(self, *exception) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._makers.shutdown(wait=True, cancel_futures=True)

    def get(self, step: int) -> tuple[Batch, System]:
        """Batch and stacked systems (K) of a step; the host goes on with those of the steps after."""
        if self._next and self._next[0][0] != step:
            for _, future in self._next:
                future.cancel()
            self._next.clear()
        while len(self._next) <= AHEAD:
            following = step + len(self._next)
            chosen = None if self._schedule is None else self._schedule.choose(following)
            self._next.append((following, self._pool.submit(self._prepare, following, chosen)))
        return self._next.popleft()[1].result()

    def example(self) -> System:
        """Return the first system of the stream."""
        batch = self._stream.batch(0)
        return make_system(jax.tree.map(lambda leaf: leaf[0], batch.configurations), self._model)

    def _prepare(self, step: int, chosen: np.ndarray | None) -> tuple[Batch, System]:
        batch = self._stream.batch(step) if chosen is None else self._stream.read(step, chosen)
        places = {int(index): k for k, index in enumerate(batch.indices)}
        new = [index for index in places if index not in self._cache]

        def make(index: int) -> System:
            return make_system(jax.tree.map(lambda leaf: leaf[places[index]], batch.configurations), self._model)

        made = dict(zip(new, self._makers.map(make, new), strict=True))
        found = {index: made[index] if index in made else self._cache[index] for index in places}
        self._remember(found)
        return batch, stack_systems([found[int(index)] for index in batch.indices])

    def _remember(self, systems: dict[int, System]) -> None:
        """Keep these as the last to be forgotten; forget the oldest when there are too many."""
        for index, system in systems.items():
            if index not in self._cache:
                self._cached_bytes += _size(system)
            self._cache[index] = system
            self._cache.move_to_end(index)
        while self._cached_bytes > self._keep_bytes and len(self._cache) > 1:
            self._cached_bytes -= _size(self._cache.popitem(last=False)[1])


def _size(system: System) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(system))
