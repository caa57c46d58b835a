"""Builds and writings that are killed, disturbed or repeated end in the very same data set."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fnqs.errors import InputError
from fnqs_data.generate.build import build_recipe
from fnqs_data.store.resume import resume_dataset, resumed_folder
from fnqs_data.store.store import open_dataset
from fnqs_data.store.verify import verify_dataset
from fnqs_data.store.write import write_dataset

RECIPE = """
name = "killed"
seed = 4
[[family]]
phase = "bcc"
count = 76
number = [8]
r_s = [1.2, 2.0]
temperature = [0, 1000]
[[family]]
phase = "liquid-molecular"
count = 350
number = [8]
r_s = [1.4, 2.0]
temperature = [500, 2000]
frames = 2
"""

SHARD = 16

BUILD = "import sys; from fnqs_data.generate.build import build_recipe; build_recipe(sys.argv[1], sys.argv[2], workers=2, shard_size=16)"  # noqa: E501


def finished_shards(parent: Path) -> int:
    """How many finished shards lie in partial folders."""
    return len(list(parent.glob(".set.partial-resumed-*/*.array_record")))


def start(recipe: Path, target: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(recipe), str(target)], stderr=subprocess.DEVNULL, start_new_session=True
    )


def members(group: int) -> list[int]:
    """Processes of a process group, read from /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are followed through /proc")
def test_a_killed_build_goes_on_and_ends_in_the_same_data_set(tmp_path):
    recipe = tmp_path / "killed.toml"
    recipe.write_text(RECIPE)
    whole = build_recipe(recipe, tmp_path / "whole", workers=1, progress=False, shard_size=SHARD)
    target, reached = tmp_path / "set", 0
    for wanted in (1, 12):
        build = start(recipe, target)
        end = time.monotonic() + 60
        while finished_shards(tmp_path) < wanted:
            assert build.poll() is None, "the build ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.002)
        os.kill(build.pid, signal.SIGKILL)
        build.wait()
        assert not target.exists()
        assert finished_shards(tmp_path) > reached
        reached = finished_shards(tmp_path)
        # Workers of a killed build end too; a second is far more than they need to notice.
        while members(build.pid) and time.monotonic() < end:
            time.sleep(0.02)
        assert members(build.pid) == []
    assert start(recipe, target).wait(timeout=60) == 0
    resumed = open_dataset(target)
    assert resumed.manifest == whole.manifest  # digests of all records and of every file among it
    assert verify_dataset(target) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.toml", "set", "whole"]


def test_another_recipe_never_goes_on(tmp_path):
    recipe = tmp_path / "killed.toml"
    recipe.write_text(RECIPE.replace("count = 350", "count = 2").replace("count = 76", "count = 3"))
    build_recipe(recipe, tmp_path / "set", workers=1, progress=False)
    (tmp_path / "set").rename(resumed_folder(tmp_path / "set", "0123456789abcdef"))
    recipe.write_text(recipe.read_text().replace("seed = 4", "seed = 5"))
    first = build_recipe(recipe, tmp_path / "set", workers=1, progress=False)
    assert first.digest == build_recipe(recipe, tmp_path / "again", workers=1, progress=False).digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "killed.toml", "set"]


@pytest.mark.parametrize("left", [0, 1, 3, 5])
def test_writing_goes_on_after_the_sound_shards(tmp_path, records, left):
    # Forty records in shards of 8; some shards are there, one is cut off, and one has no right name yet.
    whole = write_dataset(tmp_path / "whole", records, shard_size=8)
    partial = resumed_folder(tmp_path / "set", "k")
    partial.mkdir()
    names = [shard.name for shard in whole.manifest.shards]
    for name in names[:left]:
        (partial / name).write_bytes((whole.folder / name).read_bytes())
    for name in names[left : left + 1]:
        (partial / name).write_bytes((whole.folder / name).read_bytes()[:-100])
    for name in names[left + 1 :]:
        (partial / name).write_bytes((whole.folder / name).read_bytes())
    (partial / f"{names[-1]}.unfinished").write_bytes(b"half")
    asked = []

    def records_from(position):
        asked.append(position)
        yield from records[position:]

    resumed = resume_dataset(tmp_path / "set", records_from, key="k", shard_size=8)
    assert asked == [8 * left]
    assert resumed.manifest == whole.manifest
    assert verify_dataset(resumed.folder) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "whole"]


def test_a_folder_has_one_writer(tmp_path, records):
    refused = []

    def records_from(position):
        with pytest.raises(InputError, match="another process") as error:
            resume_dataset(tmp_path / "set", lambda _: records, key="other")
        refused.append(str(error.value))
        yield from records[position:]

    resumed = resume_dataset(tmp_path / "set", records_from, key="k")
    assert len(refused) == 1
    assert "\n" not in refused[0]
    assert len(resumed) == len(records)
    # Its lock is gone with it, and a lock file of a killed writer is no hindrance.
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    (tmp_path / ".second.writing").touch()
    assert len(resume_dataset(tmp_path / "second", lambda position: records[position:], key="k")) == len(records)


def test_stopping_by_hand_keeps_finished_shards_and_a_fault_keeps_nothing(tmp_path, records):
    def interrupted(error):
        def records_from(position):
            yield from records[position:20]
            raise error

        return records_from

    with pytest.raises(KeyboardInterrupt):
        resume_dataset(tmp_path / "set", interrupted(KeyboardInterrupt()), key="k", shard_size=8)
    kept = resumed_folder(tmp_path / "set", "k")
    assert {"shard-00000.array_record", "shard-00001.array_record"} <= {path.name for path in kept.iterdir()}
    with pytest.raises(InputError):
        resume_dataset(tmp_path / "set", interrupted(InputError("bad")), key="k", shard_size=8)
    assert list(tmp_path.iterdir()) == []
