"""The record of a run: metrics.jsonl, one JSON object a line, and its mirror in Weights & Biases."""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from fnqs.cli.files import write_text_atomic
from fnqs.errors import InputError
from fnqs_train.monitoring.metrics_row import MetricsRow, check_keys

METRICS_NAME = "metrics.jsonl"
_WANDB_ID_NAME = "wandb-id"


class MetricsRecord:
    """Append-only record of a run; use as a context manager.

    Args:
        run_folder: the run's folder; metrics.jsonl is made in it.
        resume_step: None for a new run; else later lines, and a half-written last one, are cut off first.
        wandb: "disabled" (nothing is imported), "offline" (files under RUN/wandb, no login) or "online".
        name: the run's name in the mirror.
        config: the run's settings, shown in the mirror.

    Raises:
        InputError: a new run where a record already stands, or an online mirror without a login.
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        run_folder: str | os.PathLike,
        *,
        resume_step: int | None = None,
        wandb: str = "disabled",
        name: str = "",
        config: Mapping[str, Any] | None = None,
    ):
        folder = Path(run_folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS_NAME
        if resume_step is None and path.exists() and path.stat().st_size:
            raise InputError(f"{path}: there is a record already; resume that run or choose another name")
        if resume_step is not None:
            _cut_back(path, resume_step)
        self._mirror = None
        if wandb != "disabled":
            self._mirror = _open_mirror(folder, wandb, name, config)
            if wandb == "offline" and resume_step is not None and path.exists():
                for row in read_metrics(path):
                    self._log_to_mirror(row)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)

    def __enter__(self) -> MetricsRecord:
        return self

    def __exit__(self, *exception) -> None:
        self._file.close()
        if self._mirror is not None:
            self._mirror.finish(exit_code=0 if exception[0] is None else 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line, at once on its way to the disk, and mirror it.

        Args:
            step: steps done.
            values: under keys of `MetricsRow`; numbers that are not finite become null.

        Raises:
            KeyError: another key.
        """
        check_keys(values)
        row = {"step": int(step)} | {key: _plain(value) for key, value in values.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        self._log_to_mirror(row)

    def _log_to_mirror(self, row: Mapping[str, Any]) -> None:
        """Mirror a line; a mirror that fails is dropped with a warning, the training goes on."""
        if self._mirror is None:
            return
        import wandb

        try:
            self._mirror.log({key: value for key, value in row.items() if key != "step"}, step=row["step"])
        except (wandb.Error, OSError) as error:
            warnings.warn(f"the wandb mirror failed and is off from here on: {error}", stacklevel=3)
            self._mirror = None


def read_metrics(path: str | os.PathLike) -> list[MetricsRow]:
    """Read the lines of a record; a half-written last one is left out.

    Args:
        path: a run folder or its metrics.jsonl.

    Raises:
        InputError: there is no record, or a line other than the last is damaged.
    """
    path = Path(path)
    if path.is_dir():
        path = path / METRICS_NAME
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no record of a training here; give the folder of a run") from None
    rows: list[MetricsRow] = []
    for number, line in enumerate(lines[:-1], start=1):
        row = _parse(line)
        if row is None:
            raise InputError(f"{path}: line {number} is not a line of a record; take it out")
        rows.append(row)
    return rows


def _parse(line: bytes) -> MetricsRow | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return cast(MetricsRow, row) if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _cut_back(path: Path, last_step: int) -> None:
    if path.exists():
        rows = [row for row in read_metrics(path) if row["step"] <= last_step]
        write_text_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))


def _plain(value: Any) -> Any:
    """Turn numpy and jax numbers and arrays into JSON values."""
    if value is None or isinstance(value, str):
        return value
    plain = np.asarray(value).tolist()
    return _finite(plain)


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _open_mirror(folder: Path, mode: str, name: str, config: Mapping[str, Any] | None) -> Any:
    """Start the mirror, under the same id whenever the run goes on.

    An offline run is a folder that cannot be reopened, and two of one id would be written over each other where they
    are uploaded: what was there before gives way, and the new one gets the whole record.
    """
    import wandb

    id_file = folder / _WANDB_ID_NAME
    if not id_file.exists():
        write_text_atomic(id_file, uuid.uuid4().hex[:12] + "\n")
    identity = id_file.read_text(encoding="utf-8").strip()
    if mode == "offline":
        for earlier in (folder / "wandb").glob(f"offline-run-*-{identity}"):
            shutil.rmtree(earlier)
    try:
        return wandb.init(
            project="fnqs",
            name=name or folder.name,
            id=identity,
            resume="allow" if mode == "online" else None,
            dir=str(folder),
            config=dict(config or {}),
            mode=mode,  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True),
        )
    except wandb.Error as error:
        raise InputError(
            f'log.wandb: wandb cannot start in mode "{mode}" ({error}); log in with `wandb login`, '
            f"or use --set log.wandb=offline"
        ) from error
