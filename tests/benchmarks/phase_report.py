"""Measured phases as growth exponents, tables, a picture and a comparison with another version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

NAMES = {
    "forward": "forward pass",
    "sweep": "one sweep more",
    "sampling": "all sweeps",
    "laplacian": "Laplacian (kinetic)",
    "ewald": "Ewald",
    "local_energy": "local energy",
    "gradients": "gradients by sample",
    "gram": "Gram matrix",
    "solve": "float64 solve",
    "natural_gradient": "natural gradient",
    "encode": "encode",
    "prepare": "make_system (host)",
    "step": "whole step",
}
"""Phases in the order of a step; the natural gradient holds the Gram matrix and the solve."""

PARTS = {
    "encode": "encode",
    "all sweeps": "sampling",
    "Ewald": "ewald",
    "local energy less Ewald": "local_energy - ewald",
    "gradients by sample": "gradients",
    "Gram matrix": "gram",
    "float64 solve": "solve",
    "natural gradient less both": "natural_gradient - gram - solve",
}
"""Phases that add up to a step, but for what lies between them; differences where one holds another."""


def growth_exponent(numbers: Sequence[int], times: Sequence[float]) -> tuple[float, float | None]:
    """Exponent p of time ~ N^p by least squares in the logarithms, and its standard error.

    The error comes from the scatter about the line, so it shows above all how far the growth is from a power;
    it needs three values of N or more.

    Raises:
        ValueError: fewer than two different N, or a time that is not above zero.
    """
    x, y = np.log(np.asarray(numbers, float)), np.log(np.asarray(times, float))
    if len(set(numbers)) < 2 or not np.all(np.isfinite(y)):
        raise ValueError(f"no exponent can be fitted to the times {list(times)} at N = {list(numbers)}")
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    if len(x) < 3:
        return slope, None
    residual = y - y.mean() - slope * x
    return slope, float(np.sqrt(residual @ residual / (len(x) - 2) / (x @ x)))


def exponents(results: Mapping[str, Any], walkers: int) -> dict[str, dict[str, float | None]]:
    """Growth exponents of all phases, and the growth from N = 16 to 54 as an exponent where both were measured.

    Args:
        results: what the workers returned, by N as text.
        walkers: that took part.
    """
    numbers = [int(number) for number in results]
    if len(numbers) < 2:
        return {}
    table = {}
    for name in NAMES:
        times = [results[str(n)]["phases"].get(name, {}).get("milliseconds", 0.0) / walkers for n in numbers]
        if min(times) <= 0:
            continue
        slope, error = growth_exponent(numbers, times)
        table[name] = {"exponent": slope, "error": error}
        if {16, 54} <= set(numbers):
            pair = [times[numbers.index(16)], times[numbers.index(54)]]
            table[name]["exponent_16_to_54"] = growth_exponent([16, 54], pair)[0]
    return table


def ratios(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Time of every phase divided by that of an older report, {N: {phase: ratio}}, where both have it."""
    return {
        number: {
            name: row["milliseconds"] / before["milliseconds"]
            for name, row in result["phases"].items()
            if (before := old["numbers"][number]["phases"].get(name))
        }
        for number, result in new["numbers"].items()
        if number in old["numbers"]
    }


def differences(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """Settings and machine properties in which two reports differ, so that a ratio is not taken for progress."""
    lines = []
    for part in ("settings", "environment"):
        keys = [key for key in {**old[part], **new[part]} if key not in ("date", "commit", "numbers")]
        lines += [
            f"{key}: {old[part].get(key, 'unset')} -> {new[part].get(key, 'unset')}"
            for key in keys
            if old[part].get(key) != new[part].get(key)
        ]
    return lines


def table_text(report: Mapping[str, Any]) -> str:
    """All tables of a report, as lines for a terminal."""
    lines = []
    for number, result in report["numbers"].items():
        phases = result["phases"]
        forward, walkers = phases["forward"]["milliseconds"], report["settings"]["walkers"]
        sweep = phases["sweep"]["milliseconds"] if "sweep" in phases else None
        rates = result["product_rate"]
        lines += [
            f"\nN = {number} ({result['crystal']}), {walkers} walkers, {report['settings']['sweeps']} sweeps; "
            f"matrix product {rates['float32'] / 1e9:.0f} Gflop/s in float32, {rates['float64'] / 1e9:.0f} in float64",
            f"{'phase':<22}{'ms':>10}{'+-':>8}{'/forward':>10}{'/sweep':>8}{'Gflop':>10}{'roofline':>10}"
            f"{'buffers MB':>12}{'peak MB':>10}{'compile s':>11}",
        ]
        for name, label in NAMES.items():
            if name not in phases:
                continue
            row = phases[name]
            count = None if row["operations"] is None else row["operations"] / 1e9
            share = None if row["roofline"] is None else 100 * row["roofline"]
            lines.append(
                f"{label:<22}{row['milliseconds']:>10.2f}{row['spread']:>8.2f}{row['milliseconds'] / forward:>10.2f}"
                f"{_cell(sweep and row['milliseconds'] / sweep, '.2f'):>8}"
                f"{_cell(count, '.3g'):>10}{_cell(share, '.2g', ' %'):>10}{_cell(row['buffer_megabytes'], '.0f'):>12}"
                f"{_cell(row['peak_megabytes'], '.0f'):>10}{_cell(row['compile_seconds'], '.1f'):>11}"
            )
        data, compilation = result["data"], result["compile"]
        lines += [
            f"data wait {data['wait_milliseconds']:.2f} ms of a step of {data['step_milliseconds']:.0f} ms with new "
            f"configurations every time: {100 * data['fraction']:.2f} %, {data['longest_milliseconds']:.2f} ms at most",
            f"compilation: init {compilation['init']:.1f} s, equilibration {compilation['equilibration']:.1f} s, "
            f"step {compilation['step']:.1f} s; step from the cache {compilation['step_warm']:.1f} s; "
            f"peak memory of the process {result['peak_megabytes']:.0f} MB",
        ]
    if report["exponents"]:
        lines.append("\ngrowth of the time per walker, N^p: p fitted over all N, and from 16 to 54 alone")
        for name, row in report["exponents"].items():
            error = "" if row["error"] is None else f" +- {row['error']:.2f}"
            pair = f"{row['exponent_16_to_54']:8.2f}" if "exponent_16_to_54" in row else ""
            lines.append(f"{NAMES[name]:<22}{row['exponent']:>8.2f}{error:<8}{pair}")
    return "\n".join(lines)


def comparison_text(report: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """Ratios of the times to those of an older report, as lines for a terminal."""
    table = ratios(report, old)
    lines = ["\ntime divided by that of the older report"]
    lines += [f"they differ in {line}" for line in differences(report, old)]
    lines.append(f"{'phase':<22}" + "".join(f"{'N = ' + number:>10}" for number in table))
    for name, label in NAMES.items():
        row = [table[number].get(name) for number in table]
        if any(value is not None for value in row):
            lines.append(f"{label:<22}" + "".join(f"{_cell(value, '.2f'):>10}" for value in row))
    return "\n".join(lines)


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Draw time per walker against N with the fitted powers, and how a step divides into its parts."""
    figure = Figure(figsize=(14, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    growth, parts = figure.subplots(1, 2)
    walkers = report["settings"]["walkers"]
    numbers = [int(number) for number in report["numbers"]]
    rows = [report["numbers"][str(number)]["phases"] for number in numbers]
    shown = [n for n in NAMES if n not in ("sampling", "natural_gradient") and all(n in row for row in rows)]
    for name in shown:
        times = np.array([row[name]["milliseconds"] for row in rows]) / walkers
        spreads = np.array([row[name]["spread"] for row in rows]) / walkers
        fit = report["exponents"].get(name)
        label = NAMES[name] + (f"  N^{fit['exponent']:.1f}" if fit else "")
        heavy = name == "step"
        colour = "black" if heavy else _colour(name)
        marker = "s" if heavy else "o"
        growth.errorbar(numbers, times, np.minimum(spreads, 0.99 * times), fmt=marker, color=colour, label=label)
        if fit:
            centre = np.exp(np.mean(np.log(times))) * (numbers / np.exp(np.mean(np.log(numbers)))) ** fit["exponent"]
            growth.plot(numbers, centre, "-" if heavy else ":", color=colour, linewidth=2 if heavy else 1)
    growth.set(xscale="log", yscale="log", xlabel="N", ylabel="time per walker (ms)", title="phases and fitted powers")
    growth.set_xticks(numbers, [str(number) for number in numbers])
    growth.minorticks_off()
    growth.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))

    bottom = np.zeros(len(numbers))
    places = np.arange(len(numbers))
    step = np.array([row["step"]["milliseconds"] for row in rows])
    for label, terms in PARTS.items():
        first, *others = terms.split(" - ")
        times = [row[first]["milliseconds"] - sum(row[n]["milliseconds"] for n in others) for row in rows]
        share = 100 * np.maximum(times, 0) / step
        parts.bar(places, share, bottom=bottom, color=_colour(first), label=label)
        bottom += share
    parts.bar(places, np.maximum(100 - bottom, 0), bottom=bottom, color="lightgrey", label="between the parts")
    parts.axhline(100, color="black", linewidth=1)
    parts.set_xticks(places, [f"N = {n}\n{t:.0f} ms" for n, t in zip(numbers, step, strict=True)])
    parts.set(ylabel="percent of the whole step", title="parts, each timed alone")
    parts.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    environment = report["environment"]
    figure.suptitle(
        f"{walkers} walkers, {report['settings']['sweeps']} sweeps; {environment['processor']}, "
        f"{environment['cores']} cores, {environment['backend']}, jax {environment['jax']}, {environment['date']}"
    )
    figure.savefig(path, dpi=110)


def _colour(name: str) -> Any:
    return colormaps["tab20"](list(NAMES).index(name))


def _cell(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else format(value, form) + unit
