"""What to do when a device has not enough memory for a step: halve what is computed together, once."""

from __future__ import annotations

from collections.abc import Callable

import jax

from fnqs.errors import InputError
from fnqs_train.chunks import Chunks


class StepPrograms:
    """The compiled step of every kind of batch, with chunks that are halved once if they do not fit.

    Args:
        make: compiles a step for chunks.
        choose: chunks for N electrons.
        announce: told in a sentence when chunks are halved.
    """

    def __init__(
        self, make: Callable[[Chunks], Callable], choose: Callable[[int], Chunks], announce: Callable[[str], None]
    ):
        self._make, self._choose, self._announce = make, choose, announce
        self._steps: dict[tuple[int, bool], tuple[Chunks, Callable]] = {}
        self._halved: set[tuple[int, bool]] = set()

    def step_of(self, n_electrons: int, twisted: bool) -> Callable:
        """Return the compiled step for batches of N electrons, at Gamma or twisted."""
        kind = (n_electrons, twisted)
        if kind not in self._steps:
            chunks = self._choose(n_electrons)
            self._steps[kind] = (chunks, self._make(chunks))
        return self._steps[kind][1]

    def take(self, n_electrons: int, twisted: bool, *arguments):
        """Take a step with a batch of N electrons, at Gamma or twisted, and wait for it.

        Args:
            n_electrons: N.
            twisted: whether the wave function is complex.
            arguments: of the step; its last result, the report, is brought to the host.

        Raises:
            InputError: the memory does not suffice even for half of the walkers together, or, with several
                processes, at all: the others would already be in the middle of the step.
        """
        kind = (n_electrons, twisted)
        self.step_of(n_electrons, twisted)
        while True:
            chunks, step = self._steps[kind]
            try:
                *state, report = step(*arguments)
                return (*state, jax.device_get(report))
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                smaller = chunks._replace(energy=max(1, chunks.energy // 2), gradient=max(1, chunks.gradient // 2))
                keys = f"memory.energy_walkers={smaller.energy} memory.gradient_walkers={smaller.gradient}"
                if jax.process_count() > 1:
                    raise InputError(f"out of memory at N = {n_electrons}; go on with --resume --set {keys}") from error
                if kind in self._halved or smaller == chunks:
                    raise InputError(
                        f"out of memory at N = {n_electrons} even with {chunks.energy} and {chunks.gradient} walkers "
                        f"together; take fewer configurations or walkers in a step"
                    ) from error
                self._halved.add(kind)
                self._steps[kind] = (smaller, self._make(smaller))
                self._announce(
                    f"out of memory at N = {n_electrons}: local energies of {smaller.energy} instead of "
                    f"{chunks.energy} and derivatives of {smaller.gradient} instead of {chunks.gradient} walkers "
                    f"together from here on"
                )


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
