"""Programs compiled before they are needed: beside one another, and beside the first steps.

Compiling takes one core, a good part of the time of a short training, and every N has programs of its own. So all those
that the first steps will run are compiled from the start, two at a time, in the order in which they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np

from fnqs.model_config import ModelConfig
from fnqs.system import System, make_system
from fnqs_data.stream.stream import ConfigurationStream
from fnqs_train.programs.memory import StepPrograms
from fnqs_train.step import Learned
from fnqs_train.walkers import Population

AT_ONCE = 2
"""Programs compiled at the same time."""

LOOKED_AT = 64
"""Steps whose programs are compiled ahead."""


class Ahead:
    """Compiles programs in threads; use as a context manager.

    They are only compiled there: what runs is left to the thread that trains.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="compile")
        self._programs: dict[Hashable, Future] = {}

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *exception) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def compile(self, name: Hashable, function: Callable, *arguments: Any) -> None:
        """Begin to compile a function for arguments like these; calls of it with such arguments need no compilation.

        Args:
            name: by which it is waited for.
            function: made by `jax.jit`; any other has nothing to compile as a whole, and is left alone.
            arguments: trees of arrays, or of shapes and types.
        """
        lower: Callable | None = getattr(function, "lower", None)
        if lower is None:
            return
        self._programs[name] = self._pool.submit(lambda: lower(*arguments).compile())

    @property
    def busy(self) -> bool:
        """Whether something is being compiled, which slows down what runs beside it."""
        return not all(program.done() for program in self._programs.values())

    def wait(self, name: Hashable) -> None:
        """Wait until a program is compiled, if it was begun; what failed there fails, and is told, where it is run."""
        if name in self._programs:
            wait([self._programs[name]])

    def compile_first(
        self,
        stream: ConfigurationStream,
        steps: int,
        model: ModelConfig,
        equilibrate: Callable,
        programs: StepPrograms,
        learned: Learned,
        population: Population,
        key: jax.Array,
    ) -> None:
        """Begin to compile what the first steps of a training run, under the names (what, N, twisted, K).

        Args:
            stream: of its configurations.
            steps: of the training.
            model: sizes of the wave function.
            equilibrate: program for new configurations.
            programs: of the steps.
            learned: parameters and optimiser.
            population: the walkers.
            key: like those of the moves.
        """
        for step in first_of_every_kind(stream, steps):
            batch = stream.batch(step)
            kind = (batch.number, batch.twisted, len(batch.indices))
            configurations = stream.dataset.configurations(batch.indices[:1])
            one = make_system(jax.tree.map(lambda leaf: leaf[0], configurations), model)
            systems = _stacked_shapes(one, len(batch.indices))
            walkers, widths, fresh = population.shapes(batch.number, len(batch.indices))
            self.compile(
                ("equilibration", *kind), equilibrate, learned.params, systems, walkers, widths, fresh, fresh, key
            )
            function = programs.step_of(batch.number, batch.twisted)
            self.compile(("training", *kind), function, learned, systems, walkers, widths, key)


def first_of_every_kind(stream: ConfigurationStream, steps: int) -> Iterator[int]:
    """Yield the first step of every kind of batch (N, at Gamma or not, size) among the first steps.

    Args:
        stream: of the configurations.
        steps: of the training.
    """
    seen = set()
    for step in range(min(steps, LOOKED_AT)):
        batch = stream.batch(step)
        kind = (batch.number, batch.twisted, len(batch.indices))
        if kind not in seen:
            seen.add(kind)
            yield step


def _stacked_shapes(system: System, configurations: int) -> Any:
    """Shapes and types of so many systems like this one, stacked."""

    def stacked(leaf: Any) -> jax.ShapeDtypeStruct:
        array = np.asarray(leaf)
        return jax.ShapeDtypeStruct((configurations, *array.shape), array.dtype)

    return jax.tree.map(stacked, system)
