import os
from dataclasses import replace

import numpy as np
import pytest

from fnqs.errors import InputError
from fnqs_data.store.append import append_dataset
from fnqs_data.store.store import open_dataset
from fnqs_data.store.verify import verify_dataset
from fnqs_data.store.write import write_dataset


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def base(tmp_path, records):
    return write_dataset(tmp_path / "one", records[:25], shard_size=10, recipe="name = 'x'", note="first")


def test_a_new_version_holds_old_and_new_and_leaves_the_old_alone(tmp_path, records, base):
    before = content(base.folder)
    made = append_dataset(base, iter(records[25:]), tmp_path / "two", note="second", shard_size=10)
    assert content(base.folder) == before
    assert verify_dataset(made.folder) == []
    assert open_dataset(made.folder).identifiers == [r.identifier for r in records]
    assert made.digest == write_dataset(tmp_path / "at-once", records).digest
    manifest = made.manifest
    assert manifest.shards[:3] == base.manifest.shards
    assert [shard.records for shard in manifest.shards] == [10, 10, 5, 10, 5]
    assert (manifest.version, manifest.parent) == (2, base.digest)
    assert (manifest.note, manifest.recipe) == ("first\nsecond", "name = 'x'")
    assert np.array_equal(made[30].configuration.protons, records[30].configuration.protons)
    again = append_dataset(made, [replace(records[0], identifier="new")], tmp_path / "three")
    assert (again.manifest.version, len(again), verify_dataset(again.folder)) == (3, 41, [])


def test_where_links_are_impossible_shards_are_copied(tmp_path, records, base, monkeypatch):
    def refuse(source, target):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    made = append_dataset(base, records[25:], tmp_path / "two")
    assert verify_dataset(made.folder) == []
    assert (made.folder / "shard-00000.array_record").stat().st_nlink == 1


@pytest.mark.parametrize("fault", ["none", "twice", "damaged", "taken"])
def test_bad_appends_are_input_errors_and_leave_nothing(tmp_path, records, base, fault):
    new, target = {"none": [], "twice": [records[3]]}.get(fault, records[25:]), tmp_path / "two"
    if fault == "damaged":
        shard = base.folder / "shard-00001.array_record"
        shard.write_bytes(shard.read_bytes()[:-7])
    if fault == "taken":
        target = base.folder
    message = {"none": "no records", "twice": "bcc-3|pa3-3", "damaged": "shard-00001", "taken": "already"}[fault]
    with pytest.raises(InputError, match=message):
        append_dataset(base, new, target)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
