"""The command fnqs-data: build, info, import, append, split, duplicates, download, verify and plot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fnqs.cli.command_line import CommandParser, positive_int, run_command
from fnqs.cli.versions import add_version_option
from fnqs.errors import InputError
from fnqs_data.download import command as download_command
from fnqs_data.generate.build import build_recipe, cached_dataset
from fnqs_data.generate.recipe import PHASES
from fnqs_data.inspect.duplicates import find_duplicates
from fnqs_data.inspect.plots import plot_records
from fnqs_data.readers.command import (
    RECOGNISED,
    add_reading_options,
    imported,
    names_in,
    read_shown,
    reading_options,
)
from fnqs_data.store.append import append_dataset
from fnqs_data.store.manifest import MANIFEST
from fnqs_data.store.record import SPLITS, Record
from fnqs_data.store.splits import HeldOut, split_records, straddling
from fnqs_data.store.store import Dataset, open_dataset
from fnqs_data.store.verify import verify_dataset
from fnqs_data.store.write import write_dataset

DESCRIPTION = """\
Proton configurations of dense hydrogen: build them from a recipe, import them from files, look at them.

A data set is a folder of ArrayRecord shards with a manifest. FILE holds hydrogen in a cell, N even (extxyz,
POSCAR, .traj, QMC-HAMM HDF5, ...; `fnqs-data import --help` lists what is recognised). Inside, lengths are in
bohr and energies in Ha; energies are printed in Ha per atom, r_s in bohr.
"""

BUILD = f"""\
Build the data set of a recipe. Same recipe, same data: the number of processes does not matter. If a build is
stopped or killed, the same command goes on from the finished shards and makes the very same data set.

A recipe is TOML with name, seed and [[family]] tables. Phases: {", ".join(PHASES)}.
Example: configs/datasets/quickstart.toml; lengths in bohr, displacements in units of r_s, temperatures in K.
"""


SPLIT = """\
Write a copy of a data set with new splits. What is held out is not trained on; the rest is "train".

The splits are held-out-phase, held-out-density, held-out-temperature and held-out-trajectory; where several fit,
the first counts. A trajectory with one frame held out is held out as a whole.
"""

DUPLICATES = """\
Find near-duplicates across splits: one structure up to rotation, reflection, translation, permutation and choice
of the lattice vectors, and trajectories with frames both in training and held out. Exit code 1 if there are any.

A supercell is not recognised as its primitive cell, nor a molecule that is turned inside its box of vacuum.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run fnqs-data: 0 is well, 1 damage or duplicates found, 2 bad input or a full disk, 130 stopped by hand."""
    return run_command("fnqs-data", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = make_parser().parse_args(arguments)
    return options.run(options)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of fnqs-data."""
    parser = CommandParser(prog="fnqs-data", description=DESCRIPTION)
    add_version_option(parser)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, run, summary: str, description: str | None = None, epilog: str | None = None
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=description or summary, epilog=epilog)
        added.set_defaults(run=run)
        return added

    build = command("build", _build, "make the data set of a recipe", BUILD)
    build.add_argument("recipe", type=Path, metavar="RECIPE", help="recipe file, TOML")
    build.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="new folder for the data set (default: a folder in the cache, $FNQS_CACHE or ~/.cache/fnqs)",
    )
    build.add_argument(
        "--workers",
        type=positive_int,
        metavar="COUNT",
        help="processes to use with --output (default: one per core)",
    )

    summary = "print what a file or data set holds: N, r_s (bohr), E/N (Ha per atom)"
    info = command("info", _info, summary, epilog=RECOGNISED)
    info.add_argument("path", type=Path, metavar="PATH", help="file (one line per frame) or data set folder")
    add_reading_options(info)

    summary = "turn files into one data set; energies eV to Ha, lengths Å to bohr"
    load = command("import", _import, summary, epilog=RECOGNISED)
    load.add_argument("files", type=Path, nargs="+", metavar="FILE", help="files or data set folders")
    load.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="new folder for the data set")
    load.add_argument("--skip-bad", action="store_true", help="leave bad frames out, and list and count them")
    load.add_argument("--note", default="", metavar="TEXT", help="source and licence, kept in the manifest")
    add_reading_options(load)

    fetch = command("download", _download, "fetch a public data base and import it", download_command.DESCRIPTION)
    download_command.add_arguments(fetch, positive_int)
    append = command("append", _append, "write a new version of a data set with more records; the old one stays")
    append.add_argument("folder", type=Path, metavar="SET", help="data set folder")
    append.add_argument("files", type=Path, nargs="+", metavar="FILE", help="files or data set folders to add")
    append.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="new folder for the new version")
    append.add_argument("--skip-bad", action="store_true", help="leave bad frames out, and list and count them")
    append.add_argument("--note", default="", metavar="TEXT", help="source and licence of what is added")
    add_reading_options(append)

    split = command("split", _split, "write a copy of a data set with other records held out", SPLIT)
    split.add_argument("folder", type=Path, metavar="SET", help="data set folder")
    split.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="new folder for the copy")
    window = {"type": float, "nargs": 2, "action": "append", "default": [], "metavar": ("LOW", "HIGH")}
    split.add_argument("--r-s", "--density", help="hold out this window of r_s, bohr (may be repeated)", **window)
    split.add_argument("--temperature", help="hold out this window of temperatures, K (may be repeated)", **window)
    for option in ("phase", "trajectory"):
        split.add_argument(
            f"--{option}", action="append", default=[], metavar="NAME", help=f"hold out this {option} (may be repeated)"
        )
    split.add_argument(
        "--trajectory-fraction",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="hold out this share of all trajectories, 0 to 1; a record outside any counts as one",
    )

    duplicates = command("duplicates", _duplicates, "find near-duplicates across splits", DUPLICATES)
    duplicates.add_argument("folder", type=Path, metavar="SET", help="data set folder")
    duplicates.add_argument(
        "--tolerance", type=float, default=0.02, metavar="BOHR", help="rms distance of the protons (default: 0.02 bohr)"
    )

    verify = command("verify", _verify, "check every file of a data set against its digests; exit code 1 if damaged")
    verify.add_argument("folder", type=Path, metavar="FOLDER", help="data set folder")

    plot = command("plot", _plot, "draw r_s, g(r) (bohr), nearest neighbours, energies (Ha per atom), two cells")
    plot.add_argument("path", type=Path, metavar="PATH", help="file or data set folder")
    plot.add_argument("--output", type=Path, required=True, metavar="PNG", help="picture to write")
    add_reading_options(plot)
    return parser


def _build(options: argparse.Namespace) -> int:
    try:
        if options.output is None:
            dataset = cached_dataset(options.recipe)
        else:
            dataset = build_recipe(options.recipe, options.output, workers=options.workers)
    except KeyboardInterrupt:
        print("fnqs-data: the same command goes on from the finished shards", file=sys.stderr)
        raise
    _print_dataset(dataset)
    return 0


def _info(options: argparse.Namespace) -> int:
    if (options.path / MANIFEST).is_file():
        _print_dataset(open_dataset(options.path))
        return 0
    table = Table(title=escape(str(options.path)))
    for heading in ("frame", "N", "r_s (bohr)", "E/N (Ha/atom)", "phase", "corrected"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    records = list(read_shown(options.path, reading_options(options)))
    for record in records:
        energy, corrected = (
            record.energy_per_atom,
            {True: "yes", False: "no", None: "unknown"}[record.corrected],
        )
        table.add_row(
            str(record.frame),
            str(record.n_atoms),
            f"{record.wigner_seitz_radius:.4f}",
            "" if energy is None else f"{energy:.6f}",
            escape(record.phase),
            corrected if energy is not None else "",
        )
    console = _console()
    console.print(table)
    console.print(_labels_line(records))
    energies = [r.energy_per_atom for r in records if r.energy_per_atom is not None]
    mean = f", mean E/N {np.mean(energies):.6f} Ha/atom" if energies else ", no energies"
    radii = [r.wigner_seitz_radius for r in records]
    numbers = [r.n_atoms for r in records]
    console.print(
        f"{len(records)} frames, N {min(numbers)} to {max(numbers)}, "
        f"r_s {min(radii):.4f} to {max(radii):.4f} bohr{mean}"
    )
    return 0


def _labels_line(records: Sequence[Record]) -> str:
    """Say which labels were read, and of which isotopes the frames are."""
    counts = {
        label: sum(getattr(record, name) is not None for record in records)
        for label, name in (("energies", "energy"), ("forces", "forces"), ("stresses", "stress"))
    }
    isotopes = sorted({record.isotope for record in records if record.isotope})
    return (
        f"read: energies of {counts['energies']} frames, forces of {counts['forces']}, "
        f"stresses of {counts['stresses']}" + (f"; isotopes {', '.join(isotopes)}" if isotopes else "")
    )


def _import(options: argparse.Namespace) -> int:
    skipped: list[str] = []
    records = imported(options.files, reading_options(options), options.skip_bad, skipped)
    dataset = write_dataset(options.output, records, note=options.note)
    _print_skipped(skipped, "bad frames were skipped")
    _print_dataset(dataset)
    return 0


def _download(options: argparse.Namespace) -> int:
    dataset, skipped = download_command.download(options)
    _print_skipped(skipped, "items and frames were skipped")
    _print_dataset(dataset)
    return 0


def _print_skipped(skipped: Sequence[str], what: str) -> None:
    for message in skipped:
        print(f"fnqs-data: skipped: {message}", file=sys.stderr)
    if skipped:
        print(f"fnqs-data: {len(skipped)} {what}", file=sys.stderr)


def _append(options: argparse.Namespace) -> int:
    skipped: list[str] = []
    base = open_dataset(options.folder)
    taken = names_in(base, options.files)
    records = imported(options.files, reading_options(options), options.skip_bad, skipped, taken)
    dataset = append_dataset(base, records, options.output, note=options.note)
    _print_skipped(skipped, "bad frames were skipped")
    _print_dataset(dataset)
    return 0


def _split(options: argparse.Namespace) -> int:
    dataset = open_dataset(options.folder)
    held_out = HeldOut(
        r_s=tuple(map(tuple, options.r_s)),
        phases=tuple(options.phase),
        temperature=tuple(map(tuple, options.temperature)),
        trajectories=tuple(options.trajectory),
        trajectory_fraction=options.trajectory_fraction,
    )
    _check_held_out(dataset, held_out)
    manifest = dataset.manifest
    records = split_records(dataset, held_out)
    _print_dataset(write_dataset(options.output, records, recipe=manifest.recipe, note=manifest.note))
    return 0


def _check_held_out(dataset: Dataset, held_out: HeldOut) -> None:
    """Raise InputError for a phase or trajectory that the data set does not hold, or a share that is none."""
    for what, wanted, known in (
        ("phase", held_out.phases, dataset.phases),
        ("trajectory", held_out.trajectories, dataset.trajectories),
    ):
        for name in wanted:
            if name not in known:
                raise InputError(f"{dataset.folder}: no record is of {what} {name!r}; see fnqs-data info")
    if not 0 <= held_out.trajectory_fraction <= 1:
        raise InputError(f"--trajectory-fraction {held_out.trajectory_fraction}: give 0 to 1")


def _duplicates(options: argparse.Namespace) -> int:
    dataset = open_dataset(options.folder)

    def announce(n_atoms: int, candidates: int) -> None:
        print(f"N = {n_atoms}: {candidates} candidates", file=sys.stderr)

    found = find_duplicates(dataset, options.tolerance, announce)
    for duplicate in found:
        first, second = (dataset.identifiers[i] for i in (duplicate.first, duplicate.second))
        splits = " and ".join(dataset.splits[i] for i in (duplicate.first, duplicate.second))
        print(f"{first} and {second}: {duplicate.rms:.4f} bohr apart, in {splits}")
    torn = straddling(zip(dataset.trajectories, dataset.splits, strict=True))
    for trajectory in torn:
        print(f"{trajectory}: a trajectory with frames both in train and held out")
    print(
        f"{len(found)} pairs within {options.tolerance} bohr across splits, {len(torn)} trajectories across splits, "
        f"among {len(dataset)} records"
    )
    return 1 if found or torn else 0


def _verify(options: argparse.Namespace) -> int:
    findings = verify_dataset(options.folder)
    for finding in findings:
        print(f"fnqs-data: {options.folder}/{finding}", file=sys.stderr)
    if not findings:
        print(f"{options.folder}: {len(open_dataset(options.folder))} records, every file as it was written")
    return 1 if findings else 0


def _plot(options: argparse.Namespace) -> int:
    records = list(read_shown(options.path, reading_options(options)))
    peaks = plot_records(records, options.output, options.path.name)
    for phase, peak in peaks.items():
        print(f"{phase}: g(r) {'has no peak of a bond' if peak is None else f'peaks at {peak:.2f} bohr'}")
    print(options.output)
    return 0


def _print_dataset(dataset: Dataset) -> None:
    """Print one line for each phase and N, and the totals."""
    table = Table(title=escape(str(dataset.folder)))
    used = [name for name in SPLITS if name in set(dataset.splits) or name in SPLITS[:3]]
    headings = [name.replace("held-out-", "held-out ") for name in used]
    for heading in ("phase", "N", *headings, "r_s (bohr)", "E/N (Ha/atom)"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    phases, splits = np.array(dataset.phases), np.array(dataset.splits)
    for phase in dict.fromkeys(dataset.phases):
        for n_atoms in np.unique(dataset.n_atoms[phases == phase]):
            chosen = (phases == phase) & (dataset.n_atoms == n_atoms)
            radii = dataset.wigner_seitz_radii[chosen]
            energies = dataset.energies_per_atom[chosen]
            energies = energies[np.isfinite(energies)]
            table.add_row(
                escape(phase),
                str(n_atoms),
                *(str(np.sum(splits[chosen] == s)) for s in used),
                f"{radii.min():.3f} to {radii.max():.3f}",
                f"{energies.min():.4f} to {energies.max():.4f}" if len(energies) else "",
            )
    console = _console()
    console.print(table)
    low, high = dataset.manifest.density_parameter
    console.print(
        f"{len(dataset)} configurations ({np.sum(splits == 'train')} to train on), "
        f"r_s {low:.3f} to {high:.3f} bohr, digest {dataset.digest}"
    )


def _console() -> Console:
    """Return a console that does not fold tables when its output goes into a file."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=120)
