"""The pictures of a report: one matplotlib figure each, as PNG for papers and as SVG for the page.

The SVG takes the page's own text colour, so that it is legible on light and dark; every point carries a tip.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from fnqs.cli.notation import with_error
from fnqs_eval.energies.table import EnergyResult
from fnqs_eval.plots import COLOURS, running_mean, running_median, save_figure
from fnqs_eval.report.report_data import RunReport
from fnqs_eval.transfer.item_result import RESULTS_NAME, ItemResult
from fnqs_eval.transfer.protocol_picture import draw_item
from fnqs_train.monitoring.metrics_row import Measured, column

WIDE, NARROW = (8.0, 4.4), (3.7, 3.7)
"""Sizes (inches) for a desk and for a phone."""

MARKERS = "osD^v<>pPX*h"

Tip = tuple[Axes, float, float, str]
"""A point in data coordinates and what is said of it."""


@dataclass(frozen=True)
class Picture:
    """One picture of the report.

    Attributes:
        name: of its PNG, without the ending.
        title: a heading.
        caption: what it shows and the files it is drawn from.
        draw: draws on a figure and returns the tips of its points.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Figure], list[Tip]]


def pictures_of(reports: Sequence[RunReport]) -> list[Picture]:
    """Choose the pictures that the runs have numbers for."""
    pictures = []
    trained = [report for report in reports if report.metrics]
    if trained:
        caption = (
            "Energy and variance of each recorded step (dots), running mean of the energy and median of the variance "
            f"(lines); the configurations change from step to step. From metrics.jsonl of {_names(trained)}."
        )
        pictures.append(Picture("training", "Training", caption, lambda figure: _training(figure, trained)))
    rows = [row for report in reports for _, row in report.all_energies() if np.isfinite(row.energy_per_atom)]
    if rows:
        caption = (
            "Zero-shot energies over density, phases by colour and shape; hollow: called poor. Bars are one standard "
            f"error. From energies-*.json and transfer*/results.json of {_names(reports)}."
        )
        pictures.append(Picture("energies", "Energy map", caption, lambda figure: _energy_map(figure, rows)))
        caption = (
            "The variance of the local energy vanishes in an exact state: the higher, the further above the ground "
            "state the energy lies. Same files."
        )
        pictures.append(Picture("variance", "Where to trust it", caption, lambda figure: _variance_map(figure, rows)))
    for report in reports:
        for name, items in report.protocols.items():
            pictures += [_item_picture(report, name, item, len(reports) > 1) for item in items]
    labelled = [row for row in rows if row.label_energy_per_atom is not None]
    if labelled:
        conventions = sorted({row.label_convention or "not stated" for row in labelled})
        caption = (
            f"Evaluated against labelled energies. Labels: {'; '.join(conventions)}. Energies here are at one twist "
            "or averaged as the table says, without finite-size correction."
        )
        pictures.append(Picture("parity", "Parity with labels", caption, lambda figure: _parity(figure, labelled)))
    return pictures


def to_svg(picture: Picture, size: tuple[float, float]) -> str:
    """Draw a picture as an inline SVG element whose text and lines have the page's colour."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": picture.name, "font.family": "sans-serif"}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        tips = picture.draw(figure)
        figure.patch.set_alpha(0)
        for axis in figure.axes:
            axis.patch.set_alpha(0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        height = 72 * size[1]
        hits = []
        for axis, x, y, text in tips:
            px, py = axis.transData.transform((x, y)) * 72 / figure.dpi
            if np.isfinite(px) and np.isfinite(py) and axis.bbox.contains(px * figure.dpi / 72, py * figure.dpi / 72):
                label = html.escape(text, quote=True)
                hits.append(f'<circle class="hit" cx="{px:.1f}" cy="{height - py:.1f}" r="7" data-tip="{label}"/>')
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    prefix = f"{picture.name}-{'w' if size == WIDE else 'n'}-"
    svg = re.sub(r'\b(id="|xlink:href="#|href="#|url\(#)', lambda found: found[1] + prefix, svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = svg.replace("#000000", "currentColor").replace("</svg>", "".join(hits) + "</svg>")
    svg = re.sub(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img" aria-label="LABEL">', svg, count=1)
    svg = svg.replace("LABEL", html.escape(picture.title, quote=True))
    return re.sub(r"(<text[^>]*style=\"[^\"]*)font: ([\d.]+)px [^;\"]*", r"\1font-size: \2px", svg)


def save_png(picture: Picture, path: Path) -> None:
    """Draw a picture as PNG, on white.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=WIDE, layout="constrained")
    picture.draw(figure)
    save_figure(figure, path)


def _training(figure: Figure, reports: Sequence[RunReport]) -> list[Tip]:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    tips: list[Tip] = []
    for colour, report in zip(_colours(len(reports)), reports, strict=True):
        steps = np.array([row["step"] for row in report.metrics], np.float64)
        panels: tuple[tuple[Axes, Measured, Callable, str], ...] = (
            (upper, "energy_per_atom", running_mean, "Ha (mean)"),
            (lower, "variance_per_atom", running_median, "Ha² (median)"),
        )
        for axis, key, smoothed, unit in panels:
            values = column(report.metrics, key)
            axis.plot(steps, values, ".", color=colour, alpha=0.35, markersize=4)
            smooth = smoothed(values)[0]
            axis.plot(steps, smooth, color=colour, linewidth=1.8, label=report.folder.name)
            chosen = np.unique(np.linspace(0, len(steps) - 1, min(60, len(steps))).round().astype(int))
            tips += [
                (axis, float(steps[i]), float(smooth[i]), f"step {steps[i]:.0f}: {smooth[i]:.4f} {unit}")
                for i in chosen
            ]
    upper.set_ylabel("E/N (Ha)")
    lower.set_ylabel("variance/N (Ha²)")
    _logarithmic(lower)
    lower.set_xlabel("step")
    for axis in (upper, lower):
        _tidy(axis)
    upper.legend(frameon=False)
    return tips


def _energy_map(figure: Figure, rows: Sequence[EnergyResult]) -> list[Tip]:
    axis = figure.subplots()
    tips = _by_phase(axis, rows, lambda row: row.energy_per_atom, lambda row: row.error_per_atom)
    axis.set_ylabel("E/N (Ha)")
    return tips


def _variance_map(figure: Figure, rows: Sequence[EnergyResult]) -> list[Tip]:
    axis = figure.subplots()
    tips = _by_phase(axis, rows, lambda row: row.variance_per_atom, None)
    _logarithmic(axis)
    axis.set_ylabel("variance/N (Ha²)")
    return tips


def _by_phase(axis: Axes, rows: Sequence[EnergyResult], value, error) -> list[Tip]:
    """Scatter over r_s with a colour and a shape for every phase."""
    phases = sorted({row.phase for row in rows})
    tips: list[Tip] = []
    for place, phase in enumerate(phases):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        chosen = [row for row in rows if row.phase == phase]
        for poor in (False, True):
            part = [row for row in chosen if (row.reliability == "poor") == poor]
            if not part:
                continue
            x, y = [row.density_parameter for row in part], [value(row) for row in part]
            axis.errorbar(
                x,
                y,
                yerr=None if error is None else [error(row) for row in part],
                fmt=marker,
                color=colour,
                markersize=6,
                markerfacecolor="none" if poor else colour,
                elinewidth=1,
            )
        axis.plot([], [], marker, color=colour, label=phase)
        tips += [(axis, row.density_parameter, value(row), tip_of(row)) for row in chosen]
    axis.set_xlabel("r_s (bohr)")
    _tidy(axis)
    narrow = axis.get_figure(root=True).get_figwidth() < 6  # type: ignore[union-attr]
    if narrow or len(phases) <= 8:
        columns = 2 if narrow else min(len(phases), 4)
        axis.get_figure(root=True).legend(frameon=False, loc="outside upper left", ncols=columns, fontsize="small")  # type: ignore[union-attr]
    else:
        axis.get_figure(root=True).legend(frameon=False, loc="outside right upper", fontsize="small")  # type: ignore[union-attr]
    return tips


def _item_picture(report: RunReport, protocol: str, item: ItemResult, several: bool) -> Picture:
    caption = (
        "Separately evaluated energies (bars: one standard error) after so many steps; the line is the limit, "
        "the end of fine-tuning, the band what counts as there. "
        f"From {report.folder.name}/{protocol}/{RESULTS_NAME}."
    )
    place = f" ({report.folder.name})" if several else ""

    def draw(figure: Figure) -> list[Tip]:
        axis = figure.subplots()
        tips = draw_item(axis, item)
        axis.legend(frameon=False, fontsize="small")
        return tips

    name = f"{protocol}-{item.name}" + (f"-{report.folder.name}" if several else "")
    return Picture(name, f"Held out: {item.name}{place}", caption, draw)


def _parity(figure: Figure, rows: Sequence[EnergyResult]) -> list[Tip]:
    axis = figure.subplots()
    tips: list[Tip] = []
    labels = np.array([row.label_energy_per_atom for row in rows], np.float64)
    energies = np.array([row.energy_per_atom for row in rows])
    both = np.concatenate([labels, energies])
    axis.plot([both.min(), both.max()], [both.min(), both.max()], "--", color="0.6", linewidth=1)
    phases = sorted({row.phase for row in rows})
    for place, phase in enumerate(phases):
        chosen = np.array([row.phase == phase for row in rows])
        style: dict[str, Any] = {
            "fmt": MARKERS[place % len(MARKERS)],
            "color": COLOURS[place % len(COLOURS)],
            "label": phase,
        }
        errors = [row.error_per_atom for row in rows if row.phase == phase]
        axis.errorbar(labels[chosen], energies[chosen], yerr=errors, **style)
    for row, label in zip(rows, labels, strict=True):
        excess = 1e3 * (row.energy_per_atom - label)
        tips.append((axis, float(label), row.energy_per_atom, f"{tip_of(row)}, {excess:+.1f} mHa from its label"))
    axis.set_xlabel("label E/N (Ha)")
    axis.set_ylabel("evaluated E/N (Ha)")
    axis.legend(frameon=False, fontsize="small")
    _tidy(axis)
    return tips


def tip_of(row: EnergyResult) -> str:
    """One line about a point."""
    energy = with_error(row.energy_per_atom, row.error_per_atom)
    judged = f", {row.reliability}" if row.reliability else ""
    return f"{row.identifier}: N = {row.number}, r_s = {row.density_parameter:.3f}, E/N = {energy} Ha{judged}"


def _names(reports: Sequence[RunReport]) -> str:
    return ", ".join(report.folder.name for report in reports)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _logarithmic(axis: Axes) -> None:
    """Scale an axis logarithmically, with plain numbers at 1, 2 and 5, over a factor of four or more."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if high < 4 * low:  # otherwise there may be no number at the axis
        axis.set_ylim(low / 2, 2 * high)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_minor_locator(NullLocator())


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, color="0.5", alpha=0.25, linewidth=0.8)
    axis.set_axisbelow(True)
