"""Pictures of a set of configurations: where it lies, how its protons sit, what its labels are."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fnqs_data.generate.molecular import FREE_BOND
from fnqs_data.inspect.cell_picture import LONGEST_BOND, draw_cell
from fnqs_data.inspect.distances import bond_peak, pair_distribution
from fnqs_data.store.record import Record

LONGEST = 4.5
"""Largest distance shown in g(r), bohr."""

SAMPLED = 400
"""Configurations of each phase that enter g(r)."""

LARGEST_DRAWN = 32
"""Cells with more protons are drawn only where a set has no smaller ones."""

Colour = tuple[float, float, float, float]


def plot_records(records: Sequence[Record], path: Path, title: str) -> dict[str, float | None]:
    """Draw r_s, nearest neighbours, g(r), labelled energies and two cells into a PNG.

    Phases whose g(r) has the peak of a bond and phases without one have a panel of g(r) each, and a drawn cell each.

    Args:
        records: what to show; at most `SAMPLED` of a phase enter g(r).
        path: the PNG to write.
        title: above the picture.

    Returns:
        Where g(r) of each phase peaks at the bond length, bohr; None for a phase without such a peak.

    Raises:
        OSError: the file cannot be written.
    """
    figure, peaks = draw_records(records, title)
    _write(figure, path)
    return peaks


def draw_records(records: Sequence[Record], title: str) -> tuple[Figure, dict[str, float | None]]:
    """Draw the picture of `plot_records`; returns it with the peaks."""
    edges = np.linspace(0.0, LONGEST, 91)
    members: dict[str, list[Record]] = {}
    for record in records:
        members.setdefault(record.phase, []).append(record)
    distances = {phase: pair_distribution(_sample(group), edges) for phase, group in sorted(members.items())}
    peaks = {phase: bond_peak(pair, edges) for phase, (pair, _) in distances.items()}
    bonded, others = [p for p in peaks if peaks[p] is not None], [p for p in peaks if peaks[p] is None]
    colours = {p: colormaps["tab10"](i % 10) for phases in (bonded, others) for i, p in enumerate(phases)}
    rows = [*others[::-1], *bonded[::-1]]  # from the bottom up

    figure = Figure(figsize=(13, 15), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}: {len(records)} configuration{'s' * (len(records) > 1)}")
    upper, middle, lower = (figure.add_subfigure(row) for row in figure.add_gridspec(3, 1))
    map_axes, nearest_axes = upper.subplots(1, 2, sharey=True)
    _draw_radii(map_axes, members, rows, colours)
    _draw_nearest(nearest_axes, distances, rows, colours, edges)
    groups = [(phases, name) for phases, name in ((bonded, "with a bond"), (others, "without a bond")) if phases]
    for axes, (phases, name) in zip(middle.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        _draw_pairs(axes, {p: distances[p][0] for p in phases}, peaks, colours, edges)
        axes.set_title(f"proton pair distribution: phases {name}")
    shown = [phases[0] for phases, _ in groups]
    labelled = any(record.energy is not None for record in records)
    grid = lower.add_gridspec(1, labelled + len(shown))
    if labelled:
        _draw_energies(lower.add_subplot(grid[0]), members, [*bonded, *others], colours)
    for column, phase in enumerate(shown, start=int(labelled)):
        record = _typical(members[phase])
        axes = lower.add_subplot(grid[column], projection="3d")
        draw_cell(axes, record.configuration, colours[phase])
        axes.set_title(
            f"{phase}, N = {record.n_atoms}, r_s = {record.wigner_seitz_radius:.2f}\nlines: below {LONGEST_BOND} bohr",
            fontsize=10,
        )
    return figure, peaks


def _sample(group: Sequence[Record]) -> list:
    chosen = np.linspace(0, len(group) - 1, min(SAMPLED, len(group))).astype(int)
    return [group[i].configuration for i in chosen]


def _typical(group: Sequence[Record]) -> Record:
    """Return the record of middle r_s among those with the most protons that can still be told apart."""
    numbers = {record.n_atoms for record in group}
    n_atoms = max((n for n in numbers if n <= LARGEST_DRAWN), default=min(numbers))
    ordered = sorted((r for r in group if r.n_atoms == n_atoms), key=lambda r: r.wigner_seitz_radius)
    return ordered[len(ordered) // 2]


def _draw_radii(
    axes: Axes, members: Mapping[str, Sequence[Record]], rows: Sequence[str], colours: Mapping[str, Colour]
) -> None:
    generator = np.random.default_rng(0)
    for row, phase in enumerate(rows):
        radii = [record.wigner_seitz_radius for record in members[phase]]
        spread = row + 0.35 * generator.uniform(-1, 1, len(radii))
        axes.plot(radii, spread, ".", markersize=2, color=colours[phase], rasterized=True)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel="r_s (bohr)", title="r_s and phase", ylim=(-0.6, len(rows) - 0.4))


def _draw_nearest(
    axes: Axes,
    distances: Mapping[str, tuple[np.ndarray, np.ndarray]],
    rows: Sequence[str],
    colours: Mapping[str, Colour],
    edges: np.ndarray,
) -> None:
    """Draw a histogram for each phase on the line of its name, all to the same height."""
    axes.axvline(FREE_BOND, color="0.4", linewidth=1, linestyle=":")
    for row, phase in enumerate(rows):
        counts = np.histogram(distances[phase][1], bins=edges)[0]
        axes.stairs(
            row - 0.4 + 0.8 * counts / max(counts.max(), 1), edges, baseline=row - 0.4, fill=True, color=colours[phase]
        )
    axes.set(xlabel="distance of the nearest proton (bohr)", title="nearest neighbours", xlim=(0.5, LONGEST))


def _draw_pairs(
    axes: Axes,
    pairs: Mapping[str, np.ndarray],
    peaks: Mapping[str, float | None],
    colours: Mapping[str, Colour],
    edges: np.ndarray,
) -> None:
    middles = (edges[1:] + edges[:-1]) / 2
    axes.axvline(FREE_BOND, color="0.4", linewidth=1, linestyle=":", label=f"{FREE_BOND:.2f} bohr")
    for i, (phase, pair) in enumerate(pairs.items()):
        peak = peaks[phase]
        label = phase if peak is None else f"{phase}, peak {peak:.2f}"
        axes.plot(middles, pair, color=colours[phase], linestyle="-" if i < 10 else "--", label=label)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.set(xlabel="r (bohr)", ylabel="g(r)", xlim=(0, LONGEST), ylim=(0, None))


def _draw_energies(
    axes: Axes, members: Mapping[str, Sequence[Record]], phases: Sequence[str], colours: Mapping[str, Colour]
) -> None:
    for i, phase in enumerate(phases):
        points = [(r.wigner_seitz_radius, r.energy_per_atom) for r in members[phase] if r.energy_per_atom is not None]
        if points:
            # Colours repeat, pairs of colour and marker do not.
            axes.plot(*np.array(points).T, "ox^s"[i // 5 % 4], markersize=4, color=colours[phase], label=phase)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.set(xlabel="r_s (bohr)", ylabel="E/N (Ha per atom)", title="labelled energies")


def _write(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(buffer.getvalue())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
