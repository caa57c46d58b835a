"""Equilibration of many configurations side by side, each until its own walkers have forgotten where they started."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from fnqs.sampling.equilibration import History, Verdict
from fnqs.system import System
from fnqs_eval.energies.slots import Slots, how, put

POINTS, SWEEPS = 4, 20
"""Looks at the walkers in one call, and moves between two of them."""


def equilibrate(
    programs: tuple[Callable, Callable],
    params: dict,
    systems: System,
    seeds: np.ndarray,
    slots: Slots,
    limits: Sequence[tuple[int, int]],
    target: float,
) -> tuple[tuple, list[Verdict]]:
    """Start walkers and move them until each configuration has settled; none depends on the others.

    Args:
        programs: those of `make_start` and `make_sampling`.
        params: parameters of the wave function.
        systems: stacked over the slots.
        seeds: (S,) of the configurations, uint32.
        slots: where the configurations are.
        limits: fewest and most sweeps of each configuration, by its count.
        target: acceptance that the widths are tuned to.

    Returns:
        contexts, walkers (S, n, N, 3), widths (S,) and the number (S,) of the next call for each configuration, all as
        numpy arrays stacked over the slots, and the verdict on each configuration, by its count.
    """
    start, sample = programs
    found = start(params, systems, seeds, slots.filled(len(limits)))
    contexts, walkers, patterns, widths = jax.tree.map(np.array, found)
    number = walkers.shape[2]
    parts = np.ones(slots.number, np.uint32)
    histories = [History(float(np.mean(patterns[slots.order[count]] ** 2))) for count in range(len(limits))]
    verdicts: dict[int, Verdict] = {}
    done = (walkers.copy(), widths.copy(), parts.copy())
    work = (jax.tree.map(np.array, (contexts, systems)), walkers, widths, patterns, seeds.copy(), parts)
    active = list(range(len(limits)))
    while active:
        groups = slots.filled(len(active))
        moved, tuned, energies, overlaps, *_ = sample(params, *work[0], *work[1:], groups, *how(POINTS, SWEEPS, target))
        walkers[...], widths[...], energies, overlaps = (np.asarray(x) for x in (moved, tuned, energies, overlaps))
        parts += np.uint32(1)
        kept = []
        for count, item in enumerate(active):
            slot, history = slots.order[count], histories[item]
            for point in range(POINTS):
                history.add(SWEEPS, overlaps[point, slot], np.real(energies[point, slot]) / number)
            verdict, (fewest, most) = history.verdict(), limits[item]
            if verdict.sweeps >= fewest and (verdict.settled or verdict.sweeps >= most):
                verdicts[item] = verdict
                put(done, int(slots.order[item]), (walkers[slot], widths[slot], parts[slot]))
            else:
                kept.append(count)
        for new, old in zip(slots.order.tolist(), slots.order[kept], strict=False):
            put(work, new, jax.tree.map(lambda leaf, old=old: leaf[old], work))
        active = [active[count] for count in kept]
    return (contexts, *done), [verdicts[item] for item in range(len(limits))]
