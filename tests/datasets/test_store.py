import errno
import os
import re

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fnqs.configuration import Configuration
from fnqs.errors import InputError
from fnqs_data.store import shards, store
from fnqs_data.store.record import Record, decode_record, encode_record
from fnqs_data.store.store import open_dataset
from fnqs_data.store.verify import verify_dataset
from fnqs_data.store.write import write_dataset


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
    assert dataset.n_atoms.tolist() == [r.n_atoms for r in records]
    assert dataset.wigner_seitz_radii.tolist() == [r.wigner_seitz_radius for r in records]
    assert dataset.phases == [r.phase for r in records]
    assert dataset.splits == [r.split for r in records]
    assert dataset.identifiers == [r.identifier for r in records]
    assert dataset.trajectories == [r.trajectory for r in records]
    assert np.array_equal(np.isnan(dataset.energies_per_atom), [r.energy is None for r in records])
    chosen = dataset.where(split="train", phase="pa3", n_atoms=8)
    expected = [i for i, r in enumerate(records) if (r.split, r.phase, r.n_atoms) == ("train", "pa3", 8)]
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


# The data set is written once; every example puts back what it changed.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_verify_names_the_file_of_any_flipped_bit(tmp_path, records, data):
    folder = tmp_path / "set"
    if not folder.exists():
        write_dataset(folder, records, shard_size=16, note="mine")
    name = data.draw(st.sampled_from([*(f"shard-{i:05d}.array_record" for i in range(3)), "index.npz"]))
    sound = (folder / name).read_bytes()
    if data.draw(st.booleans(), label="truncated"):
        damaged = sound[: data.draw(st.integers(0, len(sound) - 1))]
    else:
        bit = data.draw(st.integers(0, 8 * len(sound) - 1))
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
    (folder / name).write_bytes(damaged)
    findings = verify_dataset(folder)
    (folder / name).write_bytes(sound)
    assert [finding.split(":")[0] for finding in findings] == [name]


# No digest covers the manifest itself; what it says of the others is checked against them.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_in_a_digest_of_the_manifest_is_found(tmp_path, records, data):
    folder = tmp_path / "set"
    if not folder.exists():
        write_dataset(folder, records, shard_size=16)
    path = folder / "manifest.json"
    sound = path.read_bytes()
    digests = [m.span(1) for m in re.finditer(rb'"(?:content|blake2b|index_blake2b)": "([0-9a-f]+)"', sound)]
    first, last = data.draw(st.sampled_from(digests))
    damaged = bytearray(sound)
    damaged[data.draw(st.integers(first, last - 1))] ^= 1 << data.draw(st.integers(0, 6))
    path.write_bytes(damaged)
    try:
        assert verify_dataset(folder)
    except InputError as error:
        assert "manifest.json" in str(error)  # noqa: PT017 (either is sound: a finding, or a manifest that is none)
    finally:
        path.write_bytes(sound)


def test_configurations_are_read_without_labels_and_exactly(tmp_path, records):
    dataset = write_dataset(tmp_path / "set", records, shard_size=7)
    chosen = dataset.where(n_atoms=8)[::-1]
    stacked = dataset.configurations(chosen)
    for k, i in enumerate(chosen):
        for name in ("cell", "protons", "twist"):
            assert np.array_equal(getattr(stacked, name)[k], getattr(records[i].configuration, name))
    with pytest.raises(InputError, match="numbers of protons"):
        dataset.configurations([0, 2])
    with pytest.raises(IndexError):
        dataset.configurations([40])


def test_more_shards_than_may_be_open_are_read_all_the_same(tmp_path, records, monkeypatch):
    monkeypatch.setattr(store, "OPEN_SHARDS", 3)
    dataset = write_dataset(tmp_path / "set", records, shard_size=4)
    for i in np.random.default_rng(0).integers(40, size=100):
        assert_same(dataset[int(i)], records[i])
    assert [r.identifier for r in dataset.read(range(40))] == [r.identifier for r in records]


def test_verify_finds_a_damaged_index(tmp_path, records):
    write_dataset(tmp_path / "set", records)
    (tmp_path / "set" / "index.npz").write_bytes(b"nothing")
    assert verify_dataset(tmp_path / "set")[0].startswith("index.npz")
    with pytest.raises(InputError, match=r"index\.npz"):
        _ = open_dataset(tmp_path / "set").n_atoms


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
