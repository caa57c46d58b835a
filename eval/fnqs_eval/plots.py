"""The picture of a training, and what all pictures share."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from fnqs.cli.files import atomic_write
from fnqs_train.monitoring.metrics_row import Measured, MetricsRow, column

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, told apart with any colour vision."""


def plot_training(rows: Sequence[MetricsRow], path: str | os.PathLike, *, title: str = "") -> None:
    """Write the picture of `draw_training` as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    save_figure(draw_training(rows, title=title), path)


def draw_training(rows: Sequence[MetricsRow], *, title: str = "") -> Figure:
    """Draw energy, variance, acceptance and time per step of one run, each with a running mean or median.

    Args:
        rows: lines of metrics.jsonl; a missing or null value leaves a gap.
        title: a line above.
    """
    steps = np.array([row["step"] for row in rows], dtype=np.float64)
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    panels: tuple[tuple[Axes, Measured, str, bool], ...] = (
        (axes[0, 0], "energy_per_atom", "E/N (Ha)", False),
        (axes[0, 1], "variance_per_atom", "variance / N (Ha²)", True),
        (axes[1, 0], "acceptance", "acceptance", False),
        (axes[1, 1], "seconds_per_step", "seconds per step", False),
    )
    for axis, key, label, logarithmic in panels:
        values = column(rows, key)
        axis.plot(steps, values, ".", markersize=3, color="0.72", label="step")
        smooth, width = running_median(values) if logarithmic else running_mean(values)
        name = "median" if logarithmic else "mean"
        axis.plot(steps, smooth, color=COLOURS[0], linewidth=1.6, label=f"{name} of {width} lines")
        if logarithmic and np.any(values > 0):
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            axis.yaxis.set_minor_locator(NullLocator())
        axis.set_ylabel(label)
        _tidy(axis)
    _focus(axes[0, 0], column(rows, "energy_per_atom"))
    axes[1, 0].set_ylim(0, 1)
    seconds = column(rows, "seconds_per_step")
    if np.any(np.isfinite(seconds)):
        axes[1, 1].set_ylim(0, 1.4 * np.nanpercentile(seconds, 95))
    axes[0, 0].legend(frameon=False, loc="upper right")
    for axis in axes[1]:
        axis.set_xlabel("step")
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def running_mean(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Centred mean over about a twentieth of the points, gaps left out, and the number of points averaged."""
    windows, width = _windows(values)
    present = np.isfinite(windows)
    total = np.where(present, windows, 0.0).sum(axis=1)
    count = present.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), width


def running_median(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Compute the same for the median, which one walker near a node does not move: for variances."""
    windows, width = _windows(values)
    empty = np.all(np.isnan(windows), axis=1, keepdims=True)
    medians = np.nanmedian(np.where(empty, 0.0, windows), axis=1)
    return np.where(empty[:, 0], np.nan, medians), width


def _windows(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Gather the points (T, width) around every point, NaN where there is none; width, a twentieth of all, is odd."""
    width = max(1, len(values) // 20) | 1
    padded = np.pad(values, width // 2, constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, width) if len(values) else np.empty((0, width)), width


def _focus(axis: Axes, values: np.ndarray) -> None:
    """Let the energy axis show all but the steep start: up to the 90th percentile, generously."""
    values = values[np.isfinite(values)]
    if len(values) > 10:
        low, high = values.min(), np.percentile(values, 90)
        room = 0.25 * (high - low) or 1e-3
        axis.set_ylim(low - 0.3 * room, min(high + room, values.max() + 0.3 * room))


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, color="0.92", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.ticklabel_format(axis="x", style="plain")


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
