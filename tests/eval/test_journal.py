import dataclasses
import json
import math
import os

import numpy as np
import pytest

from fnqs.configuration import make_configuration
from fnqs.errors import InputError
from fnqs_data.store.record import Record
from fnqs_eval.energies.energy import EvaluationSettings
from fnqs_eval.energies.journal import Journal, fingerprint
from fnqs_eval.energies.table import EnergyResult
from fnqs_eval.energies.twists import parse_twists
from fnqs_train.checkpointing.digests import DIGEST_NAME
from fnqs_train.checkpointing.steps import CheckpointPath

RESULT = EnergyResult(
    identifier="a",
    number=2,
    density_parameter=1.31,
    phase="bcc",
    twist=(0.25, 0.0, 0.0),
    energy_per_atom=-0.4893121234567891,
    error_per_atom=4.1e-5,
    variance_per_atom=0.0123,
    acceptance=0.512,
    v_score=1.2e-3,
    flags=["remark"],
    weight=0.5,
)


BEFORE = (
    '{"fingerprint": "c634fdd47a32bc3d5f6a2a813935c5e3"}\n'
    '{"place": 0, "result": {"identifier": "bcc-0", "number": 2, "density_parameter": 1.25, "phase": "bcc", '
    '"twist": [0.0, 0.0, 0.0], "energy_per_atom": -1.25, "error_per_atom": 0.001, "variance_per_atom": 0.5, '
    '"acceptance": 0.5, "v_score": 0.25, "pressure": null, "label_energy_per_atom": null, "label_convention": "", '
    '"effective_samples": null, "distance": null, "reliability": null, "relative_energy": null, '
    '"relative_error": null, "weight": null, "flags": [], "steps": null}}\n'
)
"""A journal as c41eb95 wrote it, before results had a spin: of one cell, 100 sweeps of equilibration."""


def test_results_come_back_exactly(tmp_path):
    path = tmp_path / "new" / "j.jsonl"
    lost = dataclasses.replace(RESULT, energy_per_atom=math.nan, twist=None)
    with Journal(path, "x") as journal:
        journal.append({3: RESULT, 1: lost})
        journal.append({2: RESULT})
    with Journal(path, "x") as journal:
        assert list(journal.results) == [3, 1, 2]
        assert journal.results[3] == journal.results[2] == RESULT
        assert math.isnan(journal.results[1].energy_per_atom)
        journal.remove()
    assert not path.exists()


def test_a_journal_of_an_older_version_goes_on(tmp_path):
    checkpoint = CheckpointPath(tmp_path, 1)
    checkpoint.folder.mkdir(parents=True)
    (checkpoint.folder / DIGEST_NAME).write_text("{}")
    configuration = make_configuration(2.5 * np.eye(3), [[0, 0, 0], [1.25, 1.25, 1.25]])
    record = Record(configuration=configuration, identifier="bcc-0", phase="bcc", split="train")
    (tmp_path / "j.jsonl").write_text(BEFORE)
    with Journal(
        tmp_path / "j.jsonl", fingerprint(checkpoint, EvaluationSettings(equilibration_sweeps=100), [record])
    ) as journal:
        [(place, result)] = journal.results.items()
        assert (place, result.energy_per_atom, result.twist) == (0, -1.25, (0.0, 0.0, 0.0))
        assert result.spin_squared is None
        journal.append({1: RESULT})


def test_killed_anywhere_it_keeps_the_whole_lines(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, "x") as journal:
        for place in range(3):
            journal.append({place: RESULT})
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with Journal(path, "x") as journal:
            assert len(journal.results) == max(0, sum(end <= size for end in ends) - 1)
            journal.append({7: RESULT})
        with Journal(path, "x") as journal:
            assert 7 in journal.results


def test_what_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, "x") as journal:
        journal.append({0: RESULT})
        with pytest.raises(InputError, match="another process writes this journal"):
            Journal(path, "x")
    with pytest.raises(InputError, match="another checkpoint, other settings or other configurations"):
        Journal(path, "y")
    path.write_bytes(path.read_bytes() + b"garbage\n")
    with pytest.raises(InputError, match="line 3 is damaged"):
        Journal(path, "x")


def test_a_full_disk_leaves_the_journal_usable(tmp_path, monkeypatch):
    path = tmp_path / "j.jsonl"
    with Journal(path, "x") as journal:
        journal.append({0: RESULT})
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]) and (_ for _ in ()).throw(OSError()))
        with pytest.raises(OSError):  # noqa: PT011 (any)
            journal.append({1: RESULT})
        monkeypatch.undo()
    with Journal(path, "x") as journal:
        assert list(journal.results) == [0]


def test_the_fingerprint_sees_checkpoint_settings_data_and_twists(tmp_path, make_bcc):
    checkpoint = CheckpointPath(tmp_path, 1)
    checkpoint.folder.mkdir(parents=True)
    (checkpoint.folder / DIGEST_NAME).write_text("{}")
    settings = EvaluationSettings()
    records = [make_bcc(0), make_bcc(1)]

    def of(settings=settings, records=records, twists=None):
        return fingerprint(checkpoint, settings, records, twists)

    found = [
        of(),
        of(settings=dataclasses.replace(settings, seed=1)),
        of(settings=dataclasses.replace(settings, equilibration_limit=100)),
        of(records=records[::-1]),
        of(records=records[:1]),
        of(records=[make_bcc(0), make_bcc(1, twist=(0.25, 0, 0))]),
        of(twists=parse_twists("2x2x2")),
        of(twists=parse_twists("random:4")),
    ]
    assert of() == found[0]
    (checkpoint.folder / DIGEST_NAME).write_text(json.dumps({"a": "b"}))
    found.append(of())
    assert len(set(found)) == len(found)


def test_a_setting_that_did_not_exist_counts_only_where_it_is_set(tmp_path, make_bcc):
    """Fingerprints of before: of the settings without it, in nested ones too."""
    checkpoint = CheckpointPath(tmp_path, 1)
    checkpoint.folder.mkdir(parents=True)
    (checkpoint.folder / DIGEST_NAME).write_text("{}")

    @dataclasses.dataclass(frozen=True)
    class Before:
        walkers: int = 4
        seed: int | None = None

    @dataclasses.dataclass(frozen=True)
    class Now(Before):
        equilibration_limit: int | None = None

    @dataclasses.dataclass(frozen=True)
    class Nested:
        settings: Before

    def of(settings):
        return fingerprint(checkpoint, settings, [make_bcc(0)])

    assert of(Now()) == of(Before())
    assert of(Nested(Now())) == of(Nested(Before()))
    assert of(Now(equilibration_limit=5)) != of(Now())
    assert of(Nested(Now(equilibration_limit=5))) != of(Nested(Now()))
