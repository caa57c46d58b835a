import errno
import os

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnqs.configuration import Configuration
from fnqs.errors import InputError
from fnqs_data import shards
from fnqs_data.record import Record, decode_record, encode_record
from fnqs_data.store import open_dataset, verify_dataset, write_dataset


def assert_same(a: Record, b: Record) -> None:
    """Every bit, not only up to rounding: positions are stored exactly."""
    for name in ("cell", "protons", "twist"):
        assert np.array_equal(getattr(a.configuration, name), getattr(b.configuration, name))
    assert (a.forces is None) == (b.forces is None)
    if a.forces is not None:
        assert np.array_equal(a.forces, b.forces)
    for name in ("identifier", "phase", "split", "temperature", "pressure", "energy", "energy_error"):
        assert getattr(a, name) == getattr(b, name)
    for name in ("method", "corrected", "source", "frame", "digest", "trajectory"):
        assert getattr(a, name) == getattr(b, name)


@given(
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=9, max_size=9),
    text=st.text(max_size=20),
    energy=st.none() | st.floats(allow_nan=False),
    corrected=st.none() | st.booleans(),
)
def test_encoding_keeps_every_bit(numbers, text, energy, corrected):
    cell = np.array(numbers).reshape(3, 3)
    record = Record(
        configuration=Configuration(cell=cell, protons=cell[:2], twist=cell[2]),
        identifier=text,
        phase=text,
        energy=energy,
        forces=cell[1:],
        corrected=corrected,
        source=text,
        frame=3,
        digest="ab",
        trajectory=text,
    )
    assert_same(decode_record(encode_record(record)), record)


def test_decoding_damaged_bytes_is_an_input_error(records):
    with pytest.raises(InputError, match="decoded"):
        decode_record(encode_record(records[0])[:-5])


def test_write_open_read(tmp_path, records):
    written = write_dataset(tmp_path / "set", iter(records), recipe="name = 'x'", note="mine", shard_size=16)
    dataset = open_dataset(tmp_path / "set")
    assert dataset.digest == written.digest
    assert len(dataset) == len(records)
    assert len(dataset.manifest.shards) == 3
    assert dataset.manifest.note == "mine"
    for i in (0, 15, 16, 39, -1):
        assert_same(dataset[i], records[i])
    for got, i in zip(dataset.read([33, 2, 17, 2]), (33, 2, 17, 2), strict=True):
        assert_same(got, records[i])
    with pytest.raises(IndexError):
        dataset[40]
    assert [r.identifier for r in dataset] == [r.identifier for r in records]


def test_index_columns_and_selection(tmp_path, records):
    dataset = write_dataset(tmp_path / "set", records)
    assert dataset.numbers.tolist() == [r.number for r in records]
    assert dataset.density_parameters.tolist() == [r.density_parameter for r in records]
    assert dataset.phases == [r.phase for r in records]
    assert dataset.splits == [r.split for r in records]
    assert dataset.identifiers == [r.identifier for r in records]
    assert dataset.trajectories == [r.trajectory for r in records]
    assert np.array_equal(np.isnan(dataset.energies_per_atom), [r.energy is None for r in records])
    chosen = dataset.where(split="train", phase="pa3", number=8)
    expected = [i for i, r in enumerate(records) if (r.split, r.phase, r.number) == ("train", "pa3", 8)]
    assert chosen.tolist() == expected
    assert chosen.dtype == np.int64
    counts = dataset.manifest.counts
    assert counts["pa3"]["train"]["8"] == len(expected)
    assert sum(n for splits in counts.values() for by_n in splits.values() for n in by_n.values()) == 40


def test_digest_follows_the_records_and_not_the_layout(tmp_path, records):
    digests = {
        write_dataset(tmp_path / "a", records).digest,
        write_dataset(tmp_path / "b", records, shard_size=7, recipe="other text").digest,
    }
    assert len(digests) == 1
    assert write_dataset(tmp_path / "c", records[::-1]).digest not in digests


def test_verify_names_what_is_damaged(tmp_path, records):
    folder = tmp_path / "set"
    write_dataset(folder, records, shard_size=16)
    assert verify_dataset(folder) == []
    shard = folder / "shard-00001.array_record"
    sound = shard.read_bytes()
    for place in (300, len(sound) // 2, len(sound) - 1):
        flipped = bytearray(sound)
        flipped[place] ^= 1
        shard.write_bytes(flipped)
        findings = verify_dataset(folder)
        assert len(findings) == 1
        assert findings[0].startswith(shard.name)
    shard.write_bytes(sound[:-1000])
    assert verify_dataset(folder)[0].startswith(shard.name)
    shard.unlink()
    assert verify_dataset(folder) == [f"{shard.name}: missing"]
    with pytest.raises(InputError, match=shard.name):
        open_dataset(folder)[20]


def test_verify_finds_a_damaged_index(tmp_path, records):
    write_dataset(tmp_path / "set", records)
    (tmp_path / "set" / "index.npz").write_bytes(b"nothing")
    assert verify_dataset(tmp_path / "set")[0].startswith("index.npz")
    with pytest.raises(InputError, match=r"index\.npz"):
        _ = open_dataset(tmp_path / "set").numbers


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"schema": 1}'])
def test_a_bad_manifest_is_an_input_error(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json"):
        open_dataset(tmp_path)


def test_another_schema_is_refused(tmp_path, records):
    write_dataset(tmp_path / "set", records)
    path = tmp_path / "set" / "manifest.json"
    table = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**table, "schema": 99}))
    with pytest.raises(InputError, match="schema 99"):
        open_dataset(tmp_path / "set")


def test_a_taken_folder_is_refused_and_left_alone(tmp_path, records):
    (tmp_path / "set").mkdir()
    write_dataset(tmp_path / "set", records)
    with pytest.raises(InputError, match="already exists"):
        write_dataset(tmp_path / "set", records[:2])
    assert len(open_dataset(tmp_path / "set")) == 40


@pytest.mark.parametrize("fault", ["empty", "twice", "disk"])
def test_nothing_half_written_stays(tmp_path, records, monkeypatch, fault):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fault == "disk":
        monkeypatch.setattr(shards.ShardWriter, "write", full)
    given_records = {"empty": [], "twice": [*records, records[0]], "disk": records}[fault]
    with pytest.raises(OSError if fault == "disk" else InputError):
        write_dataset(tmp_path / "set", given_records, shard_size=8)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_shard_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match=r"x\.array_record"):  # noqa: PT012 (some versions fail only when closed)
        writer = shards.ShardWriter(tmp_path / "missing" / "x.array_record")
        writer.write(b"data")
        writer.close()
