"""Energy against steps for the items of a held-out protocol: zero-shot, fine-tuned, from scratch and the limit."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fnqs.cli.notation import with_error
from fnqs_eval.plots import COLOURS, save_figure
from fnqs_eval.transfer.item_result import ItemResult

BEFORE = 0.5
"""Place of the zero-shot energy on an axis that has no zero."""

TUNED, SCRATCH, ZERO_SHOT = COLOURS[0], COLOURS[1], COLOURS[2]


def plot_items(items: Sequence[ItemResult], path: str | os.PathLike) -> None:
    """Draw one panel an item as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    columns = min(3, len(items))
    rows = math.ceil(len(items) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows), layout="constrained")
    axes = np.array(figure.subplots(rows, columns)).reshape(-1)
    for axis, item in zip(axes, items, strict=False):
        draw_item(axis, item)
        axis.set_title(f"{item.name}: N = {', '.join(map(str, item.numbers))}", loc="left", fontsize="medium")
    for axis in axes[len(items) :]:
        axis.set_axis_off()
    axes[0].legend(frameon=False, fontsize="small")
    save_figure(figure, path)


def draw_item(axis: Axes, item: ItemResult) -> list[tuple[Axes, float, float, str]]:
    """Draw one item; returns its points with what is said of each."""
    zero, limit = item.zero_shot, item.limit
    tips = []
    axis.axhline(limit.energy, color="0.5", linewidth=1)
    band = (limit.energy - item.within, limit.energy + item.within)
    axis.axhspan(*band, color="0.5", alpha=0.2, linewidth=0, label=f"limit ± {1e3 * item.within:g} mHa")
    for name, colour, points in (
        ("fine-tuned", TUNED, item.fine_tuned.points[1:]),
        ("from scratch", SCRATCH, item.from_scratch.points),
    ):
        steps, energies = [point.step for point in points], [point.energy for point in points]
        errors = [point.error for point in points]
        axis.errorbar(steps, energies, yerr=errors, fmt="o-", color=colour, markersize=4, capsize=2, label=name)
        tips += [
            (axis, float(point.step), point.energy, _tip(f"{name}, step {point.step}", point.energy, point.error))
            for point in points
        ]
    axis.errorbar(
        [BEFORE], [zero.energy], yerr=[zero.error], fmt="s", color=ZERO_SHOT, markersize=6, capsize=3, label="zero-shot"
    )
    tips.append((axis, BEFORE, zero.energy, _tip("zero-shot", zero.energy, zero.error)))
    last = max(item.fine_tuned.points[-1].step, item.from_scratch.points[-1].step)
    axis.set_xscale("log")
    axis.set_xlim(0.7 * BEFORE, 1.5 * last)
    axis.xaxis.set_major_locator(FixedLocator([BEFORE, *(10**power for power in range(len(str(last))))]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda step, _: "0" if step < 1 else f"{step:.0f}"))
    axis.xaxis.set_minor_locator(NullLocator())
    _focus(axis, item)
    axis.set_xlabel("optimisation steps")
    axis.set_ylabel("E/N (Ha)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, color="0.5", alpha=0.25, linewidth=0.8)
    axis.set_axisbelow(True)
    return tips


def _focus(axis: Axes, item: ItemResult) -> None:
    """Show all but the steep start from scratch: up to five times the excess of zero-shot, or the lower half of it."""
    above = [point.energy - item.limit.energy for point in (*item.fine_tuned.points, *item.from_scratch.points)]
    finite = np.array([value for value in above if math.isfinite(value)])
    if len(finite) and math.isfinite(item.limit.energy):
        high = max(5 * max(item.zero_shot.energy - item.limit.energy, 0), 6 * item.within, float(np.median(finite)))
        low = min(float(finite.min()), -item.within, -0.05 * high)
        axis.set_ylim(
            item.limit.energy + 1.3 * low, item.limit.energy + min(1.1 * high, 1.1 * float(finite.max()) + item.within)
        )


def _tip(name: str, energy: float, error: float) -> str:
    return f"{name}: E/N = {with_error(energy, error)} Ha"
