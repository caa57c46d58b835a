"""What a report shows, read from run folders: training, energies, transfer, failures, and where each number stands."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fnqs.errors import InputError
from fnqs_eval.energies.journal import result_from_json
from fnqs_eval.energies.table import EnergyResult
from fnqs_eval.transfer.item_result import RESULTS_NAME, ItemResult, read_results
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_meta
from fnqs_train.checkpointing.steps import find_damage
from fnqs_train.config import RunConfig, load_config
from fnqs_train.monitoring.metrics import read_metrics
from fnqs_train.monitoring.metrics_row import MetricsRow

TRANSFER = "transfer"
"""Folder in a run with the results of the default protocol, and start of the names of those of others."""


@dataclass(frozen=True)
class Source:
    """A file that numbers come from, with the first digits of its blake2b."""

    name: str
    digest: str


@dataclass
class RunReport:
    """Everything known of one run.

    Attributes:
        folder: the run folder.
        config: its settings.
        step: steps of its latest valid checkpoint, None if there is none.
        meta: what that checkpoint says.
        metrics: lines of its record.
        energies: evaluated energies by file.
        provenance: of each of these files.
        protocols: items of every held-out protocol, by the folder of its results.
        failures: sentences.
        sources: the files read.
    """

    folder: Path
    config: RunConfig
    step: int | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    metrics: list[MetricsRow] = field(default_factory=list)
    energies: dict[str, list[EnergyResult]] = field(default_factory=dict)
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)
    protocols: dict[str, list[ItemResult]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Time of the training, s; of its last stretch where it was resumed."""
        return self.metrics[-1].get("elapsed_seconds") if self.metrics else None

    def all_energies(self) -> list[tuple[str, EnergyResult]]:
        """Every zero-shot energy, one a configuration, with the file it stands in."""
        rows = [(name, row) for name, rows in self.energies.items() for row in rows]
        for name, items in self.protocols.items():
            rows += [(f"{name}/{RESULTS_NAME}", row) for item in items for row in item.single]
        return [(name, row) for name, row in rows if row.twist is None or row.weight is None]


def read_run(folder: Path) -> RunReport:
    """Read a run folder; what is missing or broken becomes a failure of the report, not of the command.

    Raises:
        InputError: it is not a run folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such run folder; check the spelling of the path")
    report = RunReport(folder, load_config(folder))
    _try(report, "config.toml", lambda: None)
    report.metrics = _try(report, "metrics.jsonl", lambda: read_metrics(folder)) or []
    checkpoint = _try(report, "", lambda: resolve_checkpoint(folder))
    if checkpoint is not None:
        report.step = checkpoint.step
        report.meta = _try(report, "", lambda: restore_meta(checkpoint)) or {}
        for other in sorted(path for path in checkpoint.folder.parent.iterdir() if path.name.isdigit()):
            for fault in find_damage(checkpoint._replace(step=int(other.name)))[:1]:
                report.failures.append(f"checkpoint {other.name} is damaged: {fault}")
    for path in sorted(folder.glob("energies-*.json")):
        read = _try(report, path.name, lambda path=path: _read_results(path))
        if read is not None:
            report.energies[path.name], report.provenance[path.name] = read
    for path in sorted(folder.glob("*.journal.jsonl")):
        report.failures.append(f"{path.name}: an evaluation was cut off; the same command goes on with it")
    for place in sorted(folder.glob(f"{TRANSFER}*/{RESULTS_NAME}")):
        name = place.relative_to(folder).as_posix()
        read = _try(report, name, lambda place=place: read_results(place))
        if read is not None:
            report.protocols[place.parent.name], report.provenance[name] = read
    report.failures += _training_failures(report.metrics) + _energy_failures(report)
    return report


def _read_results(path: Path) -> tuple[list[EnergyResult], dict[str, Any]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return [result_from_json(values) for values in document["results"]], dict(document["provenance"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path.name} is not a file of energies ({type(error).__name__})") from error


def _try(report: RunReport, name: str, read):
    """Call a reader; note its file among the sources, or its complaint among the failures."""
    try:
        found = read()
    except (InputError, OSError) as error:
        report.failures.append(" ".join(str(error).replace(f"{report.folder}/", "").split()))
        return None
    path = report.folder / name
    if name and path.is_file():
        digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()[:12]
        report.sources.append(Source(name, digest))
    return found


def _training_failures(metrics: Sequence[MetricsRow]) -> list[str]:
    failures = []
    lost = [(row["step"], name) for row in metrics for name in row.get("non_finite") or []]
    if lost:
        names = ", ".join(f"{name} (step {step})" for step, name in lost[:5])
        failures.append(f"non-finite numbers while training, {len(lost)} times: {names}")
    fallbacks = [row["step"] for row in metrics if row.get("fallback")]
    if fallbacks:
        failures.append(f"the solve needed its larger damping at {len(fallbacks)} of {len(metrics)} recorded steps")
    return failures


def _energy_failures(report: RunReport) -> list[str]:
    failures = []
    for name, row in report.all_energies():
        if not math.isfinite(row.energy_per_atom):
            failures.append(f"{name}: {row.identifier} has no energy ({'; '.join(row.flags)})")
        failures += [f"{name}: {row.identifier} {flag}" for flag in row.flags if flag.startswith("stopped before")]
    return failures
