"""The journal of a long evaluation: results on the disk as they come, so that a killed run goes on where it was.

One JSON object a line: the fingerprint of the run first, then one line a result. A batch of results is one
write, flushed to the disk before the next begins; what a kill leaves half-written is the last line, and is cut off.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fnqs.errors import InputError
from fnqs.model_config import Spin
from fnqs_data.store.record import Record
from fnqs_eval.energies.table import EnergyResult
from fnqs_train.checkpointing.digests import DIGEST_NAME
from fnqs_train.checkpointing.steps import CheckpointPath

SUFFIX = ".journal.jsonl"
"""End of a journal's name."""

YOUNGER = ("equilibration_limit",)
"""Settings that identify an evaluation only where they are set: journals of before they existed still belong to it."""


class Journal:
    """Results of one evaluation; use as a context manager.

    Args:
        path: the journal; made if it is missing.
        fingerprint: of checkpoint, settings and data, see `fingerprint`.
        from_json: makes a result of its JSON object; by default an EnergyResult.
        to_json: makes JSON values of a result; by default those of a dataclass of plain values.

    Raises:
        InputError: a journal of another evaluation, a damaged one, or one that another process writes.
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        fingerprint: str,
        from_json: Callable[[Mapping[str, Any]], Any] | None = None,
        to_json: Callable[[Any], Mapping[str, Any]] = dataclasses.asdict,
    ):
        self.path, self._from_json, self._to_json = path, from_json or result_from_json, to_json
        self.results: dict[int, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(fingerprint)
        except BlockingIOError:
            os.close(self._file)
            raise InputError(f"{path}: another process writes this journal; wait, or choose another --output") from None
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception) -> None:
        os.close(self._file)

    def append(self, results: Mapping[int, Any]) -> None:
        """Add a batch, on the disk when this returns; results by the number of their configuration."""
        self._write({"place": place, "result": self._to_json(result)} for place, result in results.items())
        self.results.update(results)

    def remove(self) -> None:
        """Delete the file, once its results are written elsewhere."""
        self.path.unlink(missing_ok=True)

    def _read(self, fingerprint: str) -> None:
        with open(self._file, "rb", closefd=False) as stream:
            whole, _, torn = stream.read().rpartition(b"\n")
        if torn:
            os.ftruncate(self._file, len(whole) + 1 if whole else 0)
        lines = [self._parse(number, line) for number, line in enumerate(whole.split(b"\n"), 1)] if whole else []
        if not lines:
            self._write([{"fingerprint": fingerprint}])
            return
        if lines[0].get("fingerprint") != fingerprint:
            raise InputError(
                f"{self.path}: this journal is of another checkpoint, other settings or other configurations; "
                f"finish that evaluation, start anew with --restart, or choose another --output"
            )
        for line in lines[1:]:
            self.results[line["place"]] = self._from_json(line["result"])
        os.lseek(self._file, 0, os.SEEK_END)

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            value = json.loads(line)
            if isinstance(value, dict) and (number == 1 or {"place", "result"} <= value.keys()):
                return value
        except ValueError:
            pass
        raise InputError(f"{self.path}: line {number} is damaged; start anew with --restart")

    def _write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        os.lseek(self._file, 0, os.SEEK_END)
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)


def fingerprint(
    checkpoint: CheckpointPath,
    settings: Any,
    records: Iterable[Record],
    twists: Any = None,
    spin: Spin | None = None,
) -> str:
    """Identify an evaluation (hexadecimal): the checkpoint's files, the settings, every configuration in its order.

    Args:
        checkpoint: an undamaged one, from `resolve_checkpoint`.
        settings: a dataclass of JSON values.
        records: the configurations.
        twists: a TwistSet, or None.
        spin: total spin asked for, None for that of the run.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update((checkpoint.folder / DIGEST_NAME).read_bytes())
    digest.update(json.dumps(_identifying(dataclasses.asdict(settings)), sort_keys=True).encode())
    if twists is not None:
        digest.update(b"twists" + bytes([twists.random]) + np.ascontiguousarray(twists.twists).tobytes())
    if spin is not None:
        digest.update(b"spin" + spin.encode())
    for record in records:
        configuration = record.configuration
        for part in (configuration.cell, configuration.protons, configuration.twist):
            digest.update(np.ascontiguousarray(part, np.float64).tobytes())
        digest.update(json.dumps([record.identifier, record.phase, record.energy]).encode())
    return digest.hexdigest()


def result_from_json(values: Mapping[str, Any]) -> EnergyResult:
    """Make a result of its JSON object; a number that is null, where there must be one, is NaN."""
    known: dict[str, Any] = {name: values[name] for name in EnergyResult.__dataclass_fields__ if name in values}
    numbers = ("energy_per_atom", "error_per_atom", "variance_per_atom", "acceptance", "v_score")
    known |= {name: math.nan for name in numbers if known.get(name) is None}
    known["twist"] = None if known.get("twist") is None else tuple(known["twist"])
    return EnergyResult(**known)


def _identifying(values: dict) -> dict:
    """Leave out what is not set of the YOUNGER settings, in nested ones too."""
    return {
        name: _identifying(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None or name not in YOUNGER
    }
