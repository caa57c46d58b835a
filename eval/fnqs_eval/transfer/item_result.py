"""The results of a held-out protocol item: energies, learning curves and derived numbers, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fnqs.cli.files import write_text_atomic
from fnqs.cli.notation import with_error
from fnqs.errors import InputError
from fnqs_eval.energies.journal import result_from_json
from fnqs_eval.energies.table import EnergyResult
from fnqs_eval.transfer.learning_curve import Curve, Point, Ratio, Reached, difference, ratio, reached, rounded

RESULTS_NAME = "results.json"
"""In the folder of a protocol's results."""

HEADINGS = (
    "held out",
    "N",
    "r_s (bohr)",
    "phase",
    "trained",
    "limit E/N (Ha)",
    "zero-shot - limit (mHa)",
    "scratch end - limit (mHa)",
    "steps tuned",
    "steps scratch",
    "fewer steps",
    "s tuned",
    "s scratch",
    "less time",
    "forgotten (mHa)",
)
"""Columns of the table; a ratio in brackets is its lower bound."""


@dataclass(frozen=True)
class Forgetting:
    """What fine-tuning costs on the training set.

    Attributes:
        change: mean E/N after fine-tuning minus before, Ha.
        error: its standard error, Ha.
        configurations: how many were evaluated.
    """

    change: float
    error: float
    configurations: int


@dataclass(frozen=True, kw_only=True)
class ItemResult:
    """An item of a protocol.

    Attributes:
        name: of the item.
        configurations: their identifiers.
        numbers: N among them.
        densities: r_s of each, bohr.
        phases: among them.
        train: what fine-tuning changed.
        walkers: of each configuration in the trainings.
        within: a curve has reached the limit when it stays less than this above it, Ha per atom.
        zero_shot: the energy before any step.
        limit: the energy at the end of fine-tuning.
        fine_tuned: learning curve that starts from the foundation model; its first point is the zero-shot energy.
        from_scratch: learning curve that starts from random parameters, at equal settings.
        forgetting: None where it was not measured.
        single: zero-shot energies of the configurations one by one.
    """

    name: str
    configurations: tuple[str, ...]
    numbers: tuple[int, ...]
    densities: tuple[float, ...]
    phases: tuple[str, ...]
    train: str
    walkers: int
    within: float
    zero_shot: Point
    limit: Point
    fine_tuned: Curve
    from_scratch: Curve
    forgetting: Forgetting | None = None
    single: tuple[EnergyResult, ...] = ()

    @property
    def tuned_reached(self) -> Reached:
        """When fine-tuning reached its limit."""
        return reached(self.fine_tuned, self.limit, self.within)

    @property
    def scratch_reached(self) -> Reached:
        """When training from scratch reached the limit of fine-tuning."""
        return reached(self.from_scratch, self.limit, self.within)

    @property
    def fewer_steps(self) -> Ratio:
        """How many times fewer steps fine-tuning needs."""
        return ratio(self.tuned_reached, self.scratch_reached)

    @property
    def less_time(self) -> Ratio:
        """How many times less time fine-tuning needs."""
        seconds = (self.fine_tuned.seconds_per_step, self.from_scratch.seconds_per_step)
        return ratio(self.tuned_reached, self.scratch_reached, seconds=seconds)

    @property
    def zero_shot_excess(self) -> tuple[float, float]:
        """Zero-shot minus limit with its error, Ha per atom."""
        return difference(self.zero_shot, self.limit)

    @property
    def scratch_excess(self) -> tuple[float, float]:
        """End of the training from scratch minus limit with its error, Ha per atom."""
        return difference(self.from_scratch.points[-1], self.limit)

    def row(self) -> list[str]:
        """Write the cells under HEADINGS."""
        tuned, scratch = self.tuned_reached, self.scratch_reached
        forgotten = self.forgetting
        return [
            self.name,
            ", ".join(map(str, self.numbers)),
            _span(self.densities),
            ", ".join(self.phases),
            self.train,
            with_error(self.limit.energy, self.limit.error),
            _millihartree(*self.zero_shot_excess),
            _millihartree(*self.scratch_excess),
            str(tuned),
            str(scratch),
            str(self.fewer_steps),
            _seconds(tuned.seconds),
            _seconds(scratch.seconds),
            str(self.less_time),
            "" if forgotten is None else _millihartree(forgotten.change, forgotten.error),
        ]


def write_results(path: Path, items: Sequence[ItemResult], provenance: Mapping[str, Any]) -> None:
    """Write the results of a protocol as JSON, with what follows from them; numbers that are not finite become null.

    Raises:
        OSError: the file cannot be written.
    """
    document = {
        "units": {"energy": "Ha per atom", "error": "Ha per atom", "change": "Ha per atom", "within": "Ha per atom"},
        "provenance": dict(provenance),
        "items": [dataclasses.asdict(item) | {"derived": _derived(item)} for item in items],
    }
    text = json.dumps(msgspec.json.decode(msgspec.json.encode(document)), indent=1, allow_nan=False)
    write_text_atomic(path, text + "\n")


def read_results(path: Path) -> tuple[list[ItemResult], dict[str, Any]]:
    """Read what `write_results` wrote: the items and where they come from.

    Raises:
        InputError: it is no such file.
        OSError: it cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return [msgspec.convert(_with_nan(item), ItemResult) for item in document["items"]], document["provenance"]
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise InputError(f"{path.name} is not a file of protocol results ({type(error).__name__})") from error


def _derived(item: ItemResult) -> dict[str, Any]:
    names = ("tuned_reached", "scratch_reached", "fewer_steps", "less_time")
    found = {name: dataclasses.asdict(getattr(item, name)) for name in names}
    return found | {name: list(getattr(item, name)) for name in ("zero_shot_excess", "scratch_excess")}


def _with_nan(item: dict[str, Any]) -> dict[str, Any]:
    """Turn the null of an energy or error back into a number."""
    points = [item["zero_shot"], item["limit"], *item["fine_tuned"]["points"], *item["from_scratch"]["points"]]
    for values in points + [item["forgetting"]] * (item["forgetting"] is not None):
        values.update({key: math.nan for key, value in values.items() if value is None})
    item["single"] = [dataclasses.asdict(result_from_json(values)) for values in item.get("single", ())]
    return item


def _millihartree(value: float, error: float) -> str:
    return with_error(1e3 * value, 1e3 * error)


def _seconds(value: float | None) -> str:
    return "" if value is None else rounded(value, 3)


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"
