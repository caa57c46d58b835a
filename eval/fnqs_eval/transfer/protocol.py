"""A held-out protocol: the configurations on which the transfer of a run is measured, as a TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fnqs.cli.settings import (
    EVEN_N,
    PLAIN_NAME,
    POSITIVE,
    Range,
    at_least,
    check_ranges,
    describe,
    from_table,
    read_toml,
)
from fnqs.errors import InputError
from fnqs.optimisation.subspace import TrainedPart
from fnqs_data.generate.build import cached_dataset
from fnqs_data.readers import read_records
from fnqs_data.store.record import Record
from fnqs_data.store.store import Dataset


@dataclass(frozen=True)
class Item:
    """One `[[item]]`: held-out configurations, and how long they are trained on.

    Attributes:
        name: its folder in the output.
        data: recipe (TOML), data set folder or file of configurations; looked for beside the protocol, then in the
            current folder.
        split: instead of data, a split of the run's own data set that was not trained on, or several of them.
        configurations: how many of these are used, equally many of every split, evenly spread over r_s.
        number: protons N in each of them; unset: any.
        walkers: walkers of each configuration in both trainings.
        together: configurations in a step, at most.
        finetune_steps: steps of fine-tuning, whose end is the limit; enough for the energy to have settled.
        scratch_steps: steps from scratch.
        train: what fine-tuning changes; from scratch all parameters are trained.
        rank: of low-rank changes.
    """

    name: str
    data: str | None = None
    split: str | tuple[str, ...] | None = None
    configurations: int = 1
    number: int | None = None
    walkers: int = 128
    together: int = 4
    finetune_steps: int = 200
    scratch_steps: int = 2000
    train: TrainedPart = "all"
    rank: int = 4

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, however they are written."""
        return (self.split,) if isinstance(self.split, str) else self.split or ()


@dataclass(frozen=True)
class Protocol:
    """Settings of all items.

    Attributes:
        within: a training has reached the limit when its E/N stays less than this (Ha) above it.
        evaluate: both trainings on their way, after 1, 2, 5, 10 ... steps, or their ends only.
        error: standard error (Ha) of the E/N of each evaluated configuration; unset: a third of `within` on the way, a
            fifth of it for the limit and the zero-shot energy.
        walkers: walkers of each evaluated configuration.
        equilibration_sweeps: all-electron moves before an evaluation counts.
        measurements: local energies of a walker, at most, in an evaluation.
        forgetting_configurations: configurations of the training set on which forgetting is measured; 0: it is not.
        forgetting_error: standard error of E/N (Ha) of each of them.
        seed: of the evaluations.
    """

    within: float = 5e-4
    evaluate: Literal["curve", "ends"] = "curve"
    error: float | None = None
    walkers: int = 256
    equilibration_sweeps: int = 200
    measurements: int = 4096
    forgetting_configurations: int = 8
    forgetting_error: float = 1e-3
    seed: int = 0


def read_protocol(path: Path) -> tuple[Protocol, list[Item]]:
    """Read and check the file of a protocol.

    Raises:
        InputError: no such file, or a wrong one, as in `check_protocol`.
    """
    return check_protocol(read_toml(path), str(path))


def check_protocol(table: dict[str, Any], path: str) -> tuple[Protocol, list[Item]]:
    """Check a protocol; `[defaults]` holds keys for all items that do not set them.

    Args:
        table: its TOML tables; emptied in the process.
        path: what the user knows it by.

    Raises:
        InputError: an unknown key, a value out of range, an item without data or with a taken name.
    """
    tables, defaults = table.pop("item", []), table.pop("defaults", {})
    if not isinstance(tables, list) or not tables or not all(isinstance(item, dict) for item in tables):
        raise InputError(f"{path}: there are no [[item]] tables; add one for everything held out")
    if not isinstance(defaults, dict) or {"name", "data", "split"} & defaults.keys():
        raise InputError(f"{path}: [defaults] holds keys that many items share, such as walkers; not name, data, split")
    protocol = from_table(Protocol, table, path)
    check_ranges(vars(protocol), _PROTOCOL_RANGES, path)
    items: list[Item] = []
    for place, item in enumerate(tables, start=1):
        where = f"{path}: [[item]] {place}"
        items.append(from_table(Item, {**defaults, **item}, where))
        check_ranges(vars(items[-1]), _ITEM_RANGES, where)
        if (items[-1].data is None) == (not items[-1].splits):
            raise InputError(f"{where}: give either data (a recipe, folder or file) or split (of the run's own data)")
        if items[-1].name in [other.name for other in items[:-1]]:
            raise InputError(f"{where}: another item has the name {items[-1].name!r} already")
    return protocol, items


def describe_protocol() -> str:
    """Every key of a protocol with its default and meaning, for --help."""
    items = f"[[item]], one each, or [defaults] for all\n{describe(Item)}"
    return f"Keys of a protocol (TOML):\n{describe(Protocol)}\n\n{items}"


def item_records(item: Item, dataset: Dataset | None, protocol_file: Path, trained_split: str) -> list[Record]:
    """Choose the configurations of an item.

    Args:
        item: of the protocol.
        dataset: of the run, for items that name a split.
        protocol_file: whose folder data is looked for in.
        trained_split: which is not held out.

    Raises:
        InputError: data that are missing, unreadable or have no such configurations.
    """
    if item.data is None:
        assert dataset is not None, "the caller opens it where an item names a split"
        if trained_split in item.splits:
            raise InputError(f"{protocol_file}: item {item.name}: the run was trained on split {trained_split!r}")
        places = {f"split {split!r}": (dataset, dataset.where(split=split)) for split in item.splits}
    else:
        path = _find(item.data, protocol_file)
        source = cached_dataset(path) if path.suffix == ".toml" else read_records(path)
        places = {item.data: (source, np.arange(len(source)))}
    records: list[Record] = []
    for place, (name, (source, chosen)) in enumerate(places.items()):
        share = item.configurations * (place + 1) // len(places) - item.configurations * place // len(places)
        found = _spread(source, chosen, item, share)
        if share and not found:
            wanted = "" if item.number is None else f" with N = {item.number}"
            raise InputError(f"{protocol_file}: item {item.name}: {name} has no configurations{wanted}")
        records += found
    return [dataclasses.replace(record, split="train") for record in records]


def training_records(dataset: Dataset, split: str, count: int) -> list[Record]:
    """Choose records of the training set evenly over its order, so that all families are among them."""
    chosen = dataset.where(split=split)
    places = np.unique(np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int))
    return dataset.read(chosen[places]) if len(chosen) else []


def _find(data: str, protocol_file: Path) -> Path:
    for folder in (protocol_file.parent, Path()):
        path = folder / Path(data).expanduser()
        if path.exists():
            return path
    raise InputError(f"{protocol_file}: {data} is neither beside the protocol nor in the current folder")


def _spread(source: Dataset | Sequence[Record], chosen: np.ndarray, item: Item, wanted: int) -> list[Record]:
    if isinstance(source, Dataset):
        numbers, radii = source.n_atoms[chosen], source.wigner_seitz_radii[chosen]
    else:
        numbers = np.array([source[i].n_atoms for i in chosen])
        radii = np.array([source[i].wigner_seitz_radius for i in chosen])
    kept = np.arange(len(chosen)) if item.number is None else np.flatnonzero(numbers == item.number)
    ordered = chosen[kept[np.argsort(radii[kept], kind="stable")]]
    count = min(wanted, len(ordered))
    # One configuration is the middle one, several reach from end to end.
    places = [len(ordered) // 2] if count == 1 else np.linspace(0, len(ordered) - 1, count).round().astype(int)
    return [source[int(ordered[place])] for place in places] if count else []


_PROTOCOL_RANGES: dict[str, Range] = {
    "within": POSITIVE,
    "error": POSITIVE,
    "walkers": at_least(2),
    "equilibration_sweeps": at_least(0),
    "measurements": at_least(2),
    "forgetting_configurations": at_least(0),
    "forgetting_error": POSITIVE,
    "seed": at_least(0),
}
_ITEM_RANGES: dict[str, Range] = {
    "name": ((lambda x: PLAIN_NAME[0](x) and not x.startswith("_")), PLAIN_NAME[1]),
    "configurations": at_least(1),
    "number": EVEN_N,
    "walkers": at_least(2),
    "together": at_least(1),
    "finetune_steps": at_least(1),
    "scratch_steps": at_least(1),
    "rank": at_least(1),
}
