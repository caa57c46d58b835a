"""Systems of the configurations that a training visits, kept for the next visit as far as memory allows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

import jax
import numpy as np

from fnqs.configuration import Configuration
from fnqs.model_config import ModelConfig
from fnqs.system import System, make_system
from fnqs_data.stream.pipeline import StoredConfigurations


class PreparedSystems:
    """Makes systems with all their integrals; may be called from several threads.

    Args:
        model: sizes of the wave function.
        keep_bytes: host memory (bytes) for systems that will be visited again; those not visited for longest go first.
    """

    def __init__(self, model: ModelConfig, keep_bytes: int):
        self._model, self._keep_bytes = model, keep_bytes
        self._kept: OrderedDict[int, System] = OrderedDict()
        self._kept_bytes = 0
        self._under_way: dict[int, Future[System]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, stored: StoredConfigurations) -> list[System]:
        """Return the system of each configuration.

        Raises:
            InputError: the model cannot describe one of them.
            RuntimeError: `close` has been called.
        """
        return [
            self._system(int(index), jax.tree.map(lambda leaf, k=k: leaf[k], stored.configurations))
            for k, index in enumerate(stored.indices)
        ]

    def close(self) -> None:
        """Make no more systems: threads that are at work stop after the present one."""
        with self._lock:
            self._closed = True

    def _system(self, index: int, configuration: Configuration) -> System:
        with self._lock:
            if self._closed:
                raise RuntimeError("the training input is closed")
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
            under_way = self._under_way.get(index)
            if under_way is None:
                made = self._under_way[index] = Future()
        if under_way is not None:
            return under_way.result()
        try:
            system = make_system(configuration, self._model)
        except BaseException as error:
            with self._lock:
                del self._under_way[index]
            made.set_exception(error)
            raise
        with self._lock:
            del self._under_way[index]
            self._keep(index, system)
        made.set_result(system)
        return system

    def _keep(self, index: int, system: System) -> None:
        self._kept[index] = system
        self._kept_bytes += _size(system)
        while self._kept_bytes > self._keep_bytes and self._kept:
            self._kept_bytes -= _size(self._kept.popitem(last=False)[1])


def _size(system: System) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(system))
