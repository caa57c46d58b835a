"""The subcommand `fnqs-data download`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.progress import track

from fnqs.errors import InputError
from fnqs_data.download.fetching import Patience, Server
from fnqs_data.download.qmc_hamm import PUBLIC, Item, fetch_items, list_items
from fnqs_data.readers import iterate_records
from fnqs_data.store.record import Record
from fnqs_data.store.store import Dataset
from fnqs_data.store.write import require_free, write_dataset

DESCRIPTION = f"""\
Fetch the public QMC-HAMM data base of dense hydrogen and import it into a data set.

The files are kept in FOLDER-files (or --files); the same command run again goes on where it was cut, and fetches
nothing twice. Each file must have the length that the server announces and be readable before it counts. The server
is asked by few connections, with growing pauses after an error or as long as it asks for.

This program was tested against a server of our own that behaves, and misbehaves, like a Girder; it was never run
against the real host, {PUBLIC}, whose table is documented nowhere. Nothing else in fnqs uses the network.
"""

MOST_IN_A_ROW = 20
"""Items that fail one after the other before the server is taken to be out of order, even with --skip-bad."""

NOTE = "QMC-HAMM data base of dense hydrogen, {url}, filters {filters}; the server states no licence, ask its authors"


def add_arguments(parser: argparse.ArgumentParser, positive: Callable[[str], int]) -> None:
    """Add the options of the subcommand; `positive` reads a whole number above zero."""
    parser.add_argument("database", choices=["qmc-hamm"], help="what to fetch")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="new folder for the data set")
    parser.add_argument("--files", type=Path, metavar="FOLDER", help="where to keep the files (default: OUTPUT-files)")
    for name, what in (("tmin", "K"), ("tmax", "K"), ("pmin", "GPa"), ("pmax", "GPa")):
        bound, quantity = ("least", "most")[name.endswith("max")], {"t": "temperature", "p": "pressure"}[name[0]]
        parser.add_argument(f"--{name}", type=float, metavar=what, help=f"{bound} {quantity}, {what}")
    parser.add_argument("--limit", type=positive, metavar="COUNT", help="fetch at most so many items")
    parser.add_argument("--offset", type=int, default=0, metavar="COUNT", help="pass over so many items first")
    parser.add_argument("--connections", type=int, default=2, choices=range(1, 5), help="at the same time (default: 2)")
    parser.add_argument("--url", default=PUBLIC, help=f"another server with the same routes (default: {PUBLIC})")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad frames and items out, list and count them")


def download(options: argparse.Namespace, patience: Patience | None = None) -> tuple[Dataset, list[str]]:
    """Fetch what the options ask for and import it.

    Args:
        options: parsed options of the subcommand.
        patience: how long to wait for the server.

    Returns:
        the data set, and what was left out of it.

    Raises:
        InputError: if the folder is taken, or something could not be had or read.
    """
    require_free(options.output)
    if options.offset < 0:
        raise InputError(f"--offset {options.offset} is negative; give the number of items to pass over")
    filters = {
        name[0].upper() + name[1:]: value
        for name in ("tmin", "tmax", "pmin", "pmax")
        if (value := getattr(options, name)) is not None
    }
    folder = options.files or options.output.with_name(f"{options.output.name}-files")
    server = Server(options.url, patience or Patience())
    items = list_items(server, filters, limit=options.limit, offset=options.offset)
    files, skipped, in_a_row = [], [], 0
    console, quiet = Console(stderr=True), not sys.stderr.isatty()
    with closing(fetch_items(server, items, folder, connections=options.connections)) as fetched:
        shown = track(fetched, description="fetching", total=len(items), console=console, disable=quiet)
        for item, outcome in zip(items, shown, strict=True):
            if isinstance(outcome, Path):
                files.append((item, outcome))
                in_a_row = 0
                continue
            skipped.append(str(outcome))
            in_a_row += 1
            if not options.skip_bad or in_a_row == MOST_IN_A_ROW:
                cure = "" if options.skip_bad else ", --skip-bad goes on without such items"
                raise InputError(f"{outcome} ({len(files)} of {len(items)} files are in {folder}{cure})")
    if not files:
        raise InputError(f"none of {len(items)} items could be had, the first one so: {skipped[0]}")
    note = NOTE.format(url=server.url, filters=filters or "none")
    return write_dataset(options.output, _records(files, options.skip_bad, skipped), note=note), skipped


def _records(files: Sequence[tuple[Item, Path]], skip_bad: bool, skipped: list[str]) -> Iterator[Record]:
    """Yield the records of all files, with what the table says of them."""
    for item, path in files:
        for record in iterate_records(path):
            if isinstance(record, Record):
                yield item.complete(record)
            elif skip_bad:
                skipped.append(str(record))
            else:
                raise InputError(f"{record} (--skip-bad leaves such frames out)")
