"""What the subcommands that read files share: their options, the records of many files, the table of one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fnqs.errors import InputError
from fnqs_data.readers import iterate_records
from fnqs_data.readers.frame.labels import CHARGE, ENERGY, FORCES, STRESS, VIRIAL
from fnqs_data.readers.names import distinct_names
from fnqs_data.readers.options import ReadOptions
from fnqs_data.readers.progress import shown
from fnqs_data.readers.recognition.known_formats import READ
from fnqs_data.store.manifest import file_digest
from fnqs_data.store.record import Record
from fnqs_data.store.store import Dataset


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


RECOGNISED = f"""\
Formats, recognised by their content (else by their name):
{chr(10).join(f"  {name:<17} {what}" for name, what in READ.items())}

Labels of a frame, in any case of letters:
  energy   {_listed(ENERGY)}
           total energy of the cell, eV; a free energy is never taken for it
  forces   {_listed(FORCES)}
           columns, eV/Å
  stress   {_listed(STRESS)}
           eV/Å^3, positive under tension, 9 numbers or xx yy zz yz xz xy
  virial   {_listed(VIRIAL)}
           eV, minus the volume times the stress
  others   energy_error (eV), twist, phase, temperature (K), pressure (GPa), rs (bohr), method, trajectory
  refused  {_listed(CHARGE)} other than 0; magnetic moments that do not cancel
Whatever else holds numbers is named in one line, "not read: ...". Other formats are refused with a reason.
"""


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a file leaves open."""
    parser.add_argument("--format", metavar="NAME", help="format of the files, where the content misleads")
    for label, unit in (("energy", "eV"), ("forces", "eV/Å"), ("stress", "eV/Å^3"), ("virial", "eV")):
        parser.add_argument(f"--{label}-key", metavar="KEY", help=f"name of the {label} in the files, {unit}")


def reading_options(options: argparse.Namespace) -> ReadOptions:
    """Return what `add_reading_options` has parsed."""
    return ReadOptions(
        format=options.format,
        energy_key=options.energy_key,
        forces_key=options.forces_key,
        stress_key=options.stress_key,
        virial_key=options.virial_key,
    )


def read_shown(path: Path, options: ReadOptions) -> Iterator[Record]:
    """Yield the records of one file with signs of life, and tell at the end what is not read.

    Raises:
        InputError: for the first bad frame.
    """
    told: list[str] = []
    for item in shown(iterate_records(path, options=options, told=told), path.name):
        if isinstance(item, InputError):
            raise item
        yield item
    print_notes(told)


def imported(
    files: Sequence[Path], options: ReadOptions, skip_bad: bool, skipped: list[str], taken: Collection[str] = ()
) -> Iterator[Record]:
    """Yield the records of all files in turn, named by as much of the path as tells the files apart.

    Args:
        files: files or data set folders.
        options: what the user says of them.
        skip_bad: whether bad frames are left out; they go to `skipped`.
        skipped: takes a sentence for each frame that is left out.
        taken: names of files that are in use already.

    Raises:
        InputError: for a bad frame, unless those are skipped; if all are bad; if a file is given twice.
    """
    names = distinct_names(files, taken)
    found = False
    for file, name in zip(files, names, strict=True):
        told: list[str] = []
        for item in shown(iterate_records(file, options=options, told=told), name):
            if isinstance(item, InputError):
                if not skip_bad:
                    raise InputError(f"{item} (--skip-bad leaves such frames out)")
                skipped.append(str(item))
                continue
            found = True
            yield _renamed(item, file, name)
        print_notes(told)
    if skipped and not found:
        raise InputError(f"all {len(skipped)} frames are bad, the first one so: {skipped[0]}")


def names_in(base: Dataset, files: Sequence[Path]) -> set[str]:
    """Return the names of files that records of a data set have.

    Args:
        base: the data set.
        files: what is to be added to it.

    Raises:
        InputError: if one of the files is in the data set already.
    """
    first: dict[str, int] = {}
    for index, identifier in enumerate(base.identifiers):
        first.setdefault(identifier.rpartition("#")[0], index)
    for file in files:
        alike = [index for name, index in first.items() if name.rpartition("/")[2] == file.name]
        if alike and file.is_file() and file_digest(file) in {record.digest for record in base.read(alike)}:
            raise InputError(f"{file} is in {base.folder} already; give what is new")
    return set(first)


def _renamed(record: Record, file: Path, name: str) -> Record:
    """Give a record the name of its file; those of a data set have names, and get its folder only where it must be."""
    folder = name.removesuffix(file.name)
    return replace(record, identifier=f"{folder}{record.identifier}") if folder else record


def print_notes(told: Sequence[str]) -> None:
    """Print on stderr what files say and nobody reads."""
    for sentence in told:
        print(f"fnqs-data: note: {sentence}", file=sys.stderr)
