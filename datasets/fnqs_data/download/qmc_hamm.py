"""The public QMC-HAMM data base of dense hydrogen: its table, its files, what the table says of them.

The server is a Girder with two routes of interest: `GET /api/v1/qmc/table` with the filters Tmin, Tmax (K), Pmin,
Pmax (GPa), limit and offset, and `GET /api/v1/item/<id>/download`. The fields of a table's row are documented
nowhere; the page of the data base reads `DT_RowData.itemId`, `name`, `T` and `P` from `data`. So several names are
understood for each, and a row without an item is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from fnqs.errors import InputError
from fnqs_data.download.fetching import Server
from fnqs_data.readers import iterate_records
from fnqs_data.store.record import Record

PUBLIC = "https://girder.hub.yt"
TABLE, ITEM = "/api/v1/qmc/table", "/api/v1/item/{}/download"
PAGE, MOST_ITEMS = 100, 100_000


@dataclass(frozen=True)
class Item:
    """A row of the table: an item's id, a file name that is safe here, temperature (K) and pressure (GPa) if given."""

    identifier: str
    file_name: str
    temperature: float | None
    pressure: float | None

    def complete(self, record: Record) -> Record:
        """Add what only the table says to a record of the item's file."""
        return replace(
            record,
            temperature=self.temperature if record.temperature is None else record.temperature,
            pressure=self.pressure if record.pressure is None else record.pressure,
        )


def list_items(server: Server, filters: dict[str, float], *, limit: int | None = None, offset: int = 0) -> list[Item]:
    """Read the table page by page.

    Args:
        server: where the data base is.
        filters: Tmin, Tmax in K, Pmin, Pmax in GPa; those that are wanted.
        limit: how many items at most; None for all.
        offset: how many to pass over first.

    Raises:
        InputError: if the server's answer is no such table, or nothing matches.
    """
    items: dict[str, Item] = {}
    while limit is None or len(items) < limit:
        page = PAGE if limit is None else min(PAGE, limit - len(items))
        rows = _rows(server.json(TABLE, {**filters, "limit": page, "offset": offset}), server.url)
        found = {item.identifier: item for item in (_item(row, server.url) for row in rows)}
        # A server that ignores the offset would give the first page for ever.
        if not found.keys() - items.keys():
            break
        items |= found
        offset += len(rows)
        if len(items) > MOST_ITEMS:
            raise InputError(f"{server.url}: its table has no end; narrow it with --limit or the filters")
    if not items:
        raise InputError(f"{server.url}: no item of the table matches; widen the ranges of temperature and pressure")
    return list(items.values())[:limit]


def fetch_items(
    server: Server, items: Sequence[Item], folder: Path, *, connections: int
) -> Generator[Path | InputError, None, None]:
    """Fetch the files of items into a folder, in their order; those that are there already are kept.

    A file has its final name once it is complete and holds a configuration that our readers accept; until
    then its name begins with `.part-`, and a later run goes on with it.

    Args:
        server: where the data base is.
        items: what to fetch.
        folder: made if missing.
        connections: requests at the same time.

    Yields:
        for each item its file, or why it could not be had.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def one(item: Item) -> Path | InputError:
        try:
            return _fetch(server, item, folder)
        except InputError as error:
            return error

    pool = ThreadPoolExecutor(max_workers=connections)
    try:
        yield from pool.map(one, items)
    finally:
        server.stopped.set()
        pool.shutdown(cancel_futures=True)


def _fetch(server: Server, item: Item, folder: Path) -> Path:
    target = folder / item.file_name
    if target.is_file():
        return target
    part = folder / f".part-{item.file_name}"
    for last in (False, True):
        pieced = server.fetch(ITEM.format(item.identifier), part)
        fault = _fault(part)
        if fault is None:
            break
        part.unlink()
        # Pieces of two different files can look like one; a second time it comes in one piece.
        if last or not pieced:
            raise InputError(f"{target}: what came from {server.url} is no configuration: {fault}")
    part.rename(target)
    return target


def _fault(path: Path) -> str | None:
    """Why no frame of a file can be read, None if one can."""
    try:
        items = list(iterate_records(path))
    except InputError as error:
        return str(error)
    return None if any(isinstance(item, Record) for item in items) else str(items[0])


def _rows(answer: object, url: str) -> list:
    """Rows of a table: the answer itself, or a list in it."""
    if isinstance(answer, dict):
        answer = next((answer[key] for key in ("data", "rows", "items", "results") if key in answer), None)
    if not isinstance(answer, list):
        raise InputError(f"{url}: its answer is not the table of the data base; is this a QMC-HAMM server?")
    return answer


def _item(row: object, url: str) -> Item:
    """Understand a row; raises InputError if it names no item."""
    fields = dict(row) if isinstance(row, dict) else {}
    nested = fields.get("DT_RowData")
    fields = {**fields, **(nested if isinstance(nested, dict) else {})}
    found = next((fields[key] for key in ("itemId", "_id", "id") if fields.get(key)), None)
    identifier = found.get("$oid") if isinstance(found, dict) else found
    if not isinstance(identifier, str) or not re.fullmatch(r"[0-9A-Za-z]{1,64}", identifier):
        raise InputError(f"{url}: a row of its table names no item ({str(row)[:120]}); is this a QMC-HAMM server?")
    name = re.sub(r"[^0-9A-Za-z._-]+", "_", str(fields.get("name") or ""))[-80:]
    return Item(
        identifier=identifier,
        file_name=f"{identifier}-{name}" if name else identifier,
        temperature=_number(fields, ("T", "tkelvin", "temperature")),
        pressure=_number(fields, ("P", "pgpa", "pressure")),
    )


def _number(fields: dict, names: Sequence[str]) -> float | None:
    """First of the fields that is a finite number, or None."""
    values = (fields.get(name) for name in names)
    return next((float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)), None)
