"""The command fnqs-evaluate transfer: one item of a protocol after another, each result written when it is there."""

from __future__ import annotations

import dataclasses
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fnqs.cli.files import write_text_atomic
from fnqs.errors import InputError
from fnqs_eval.energies.table import print_table
from fnqs_eval.plots import plot_training
from fnqs_eval.transfer.conclusion import conclusions
from fnqs_eval.transfer.default_protocol import default_protocol
from fnqs_eval.transfer.held_out import Foundation, run_item
from fnqs_eval.transfer.item_result import HEADINGS, RESULTS_NAME, ItemResult, write_results
from fnqs_eval.transfer.protocol import check_protocol, item_records, read_protocol, training_records
from fnqs_eval.transfer.protocol_picture import plot_items
from fnqs_train.checkpointing.steps import CheckpointPath
from fnqs_train.config import load_config
from fnqs_train.loading import load_dataset, load_params
from fnqs_train.monitoring.metrics import read_metrics
from fnqs_train.run_folder import empty_folder, is_empty

COPY_NAME = "protocol.toml"
"""In the folder of a protocol's results."""


def run_protocol(checkpoint: CheckpointPath, file: Path | None, folder: Path, *, restart: bool) -> int:
    """Do what is left of a protocol and print its table, and what can be concluded.

    Args:
        checkpoint: the foundation model.
        file: the protocol; None for the default one.
        folder: of the results.
        restart: delete what an earlier protocol left there.

    Raises:
        InputError: a wrong protocol, missing data, or a folder of something else.
    """
    if folder.exists() and not is_empty(folder) and not (folder / COPY_NAME).exists():
        raise InputError(f"{folder}: the folder holds something else; choose another one with --output")
    config = load_config(checkpoint.run_folder)
    own = None
    if file is None:
        own = load_dataset(config)
        text, name = default_protocol(config, own), "the default protocol"
        protocol, items = check_protocol(tomllib.loads(text), name)
    else:
        protocol, items = read_protocol(file)
        text, name = file.read_text(encoding="utf-8"), file.name
    wanted = protocol.forgetting_configurations
    if own is None and (wanted or any(item.splits for item in items)):
        own = load_dataset(config)
    records = [item_records(item, own, file or Path(name), config.data.split) for item in items]
    remembered = training_records(own, config.data.split, wanted) if own is not None and wanted else []
    foundation = Foundation(checkpoint, config, load_params(checkpoint, config), remembered, folder)
    if restart and folder.exists():
        empty_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomic(folder / COPY_NAME, text)
    plot_training(read_metrics(checkpoint.run_folder), folder / "training.png", title=config.name)
    provenance = {
        "run": config.name,
        "step": checkpoint.step,
        "protocol": name,
        "settings": dataclasses.asdict(protocol),
        "versions": {name: version(name) for name in ("fnqs", "jax", "numpy")},
    }
    results: list[ItemResult] = []
    for item, chosen in zip(items, records, strict=True):
        results.append(run_item(foundation, protocol, item, chosen, lambda text: print(text, file=sys.stderr)))
        write_results(folder / RESULTS_NAME, results, provenance)
        plot_items(results, folder / "transfer.png")
        print(f"{item.name} done", file=sys.stderr)
    for result in results:
        print_table(result.single, title=f"{result.name}: zero-shot")
    _print_table(results, f"{foundation.name} on what was held out, within {1e3 * protocol.within:g} mHa per atom")
    print("\n".join(conclusions(results)))
    print(f"written: {folder}/{RESULTS_NAME}, transfer.png, training.png")
    return 0


def _print_table(results: list[ItemResult], title: str) -> None:
    """Print the results as a table whose columns are the items: there are more numbers than items."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows = [result.row() for result in results]
    table.add_column(HEADINGS[0], no_wrap=True)
    for row in rows:
        table.add_column(Text(row[0]), justify="right", no_wrap=True)
    for place, heading in enumerate(HEADINGS[1:], start=1):
        table.add_row(heading, *[Text(row[place]) for row in rows])
    print(title)
    console = Console(highlight=False, width=10_000)
    console.width = console.measure(table).maximum
    console.print(table)
