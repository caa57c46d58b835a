"""Batches ready for a step: the host prepares the next ones while the device works on the present one."""

from __future__ import annotations

from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from fnqs.configuration import Configuration
from fnqs.model_config import ModelConfig
from fnqs.system import System, make_system, stack_systems
from fnqs_data.stream import Batch, ConfigurationStream
from fnqs_train.chunks import MemoryConfig
from fnqs_train.schedule import Schedule

AHEAD = 3
"""Batches prepared ahead of the step, so that a quick step of small cells does not wait for one of large cells."""


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
        self._next: deque[tuple[int, Future]] = deque()
        self._cache: OrderedDict[int, System] = OrderedDict()
        self._cached_bytes = 0

    def __enter__(self) -> PreparedBatches:
        return self

    def __exit__(self, *exception) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

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
        return self._system(int(batch.indices[0]), jax.tree.map(lambda leaf: leaf[0], batch.configurations))

    def _prepare(self, step: int, chosen: np.ndarray | None) -> tuple[Batch, System]:
        batch = self._stream.batch(step) if chosen is None else self._stream.read(step, chosen)
        systems = [
            self._system(int(index), jax.tree.map(lambda leaf, k=k: leaf[k], batch.configurations))
            for k, index in enumerate(batch.indices)
        ]
        return batch, stack_systems(systems)

    def _system(self, index: int, configuration: Configuration) -> System:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        system = make_system(configuration, self._model)
        self._cache[index] = system
        self._cached_bytes += _size(system)
        while self._cached_bytes > self._keep_bytes and len(self._cache) > 1:
            self._cached_bytes -= _size(self._cache.popitem(last=False)[1])
        return system


def _size(system: System) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(system))
