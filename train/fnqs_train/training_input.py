"""What every step of a training takes in: which configurations meet, and their systems on all processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.sharding import Mesh

from fnqs.system import System
from fnqs_data.stream.pipeline import share_batches
from fnqs_data.stream.prepared_systems import PreparedSystems
from fnqs_data.stream.stream import Batch, ConfigurationStream
from fnqs_train.distributed.exchange import gather_rows


@contextmanager
def training_input(
    stream: ConfigurationStream, systems: PreparedSystems, mesh: Mesh | None, *, start: int, stop: int
) -> Iterator[Iterator[tuple[Batch, System]]]:
    """Prepare the steps from `start` to before `stop`, some ahead; every process must take them all.

    Args:
        stream: which configurations meet in which step.
        systems: makes them; closed at the end.
        mesh: of all devices of all processes; None for a single device.
        start: first step; the only state that a resume needs.
        stop: step after the last one.

    Returns:
        for each step its batch and the stacked systems (K).
    """
    shares = share_batches(
        stream, systems, start=start, stop=stop, process=jax.process_index(), processes=jax.process_count()
    )

    def batches() -> Iterator[tuple[Batch, System]]:
        for step, share in enumerate(shares, start):
            batch = stream.batch(step)
            yield batch, gather_rows(mesh, share, len(batch.indices))

    try:
        yield batches()
    finally:
        systems.close()
        shares.close()
