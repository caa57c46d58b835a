"""One command writes a run folder at a time; a folder is emptied through a link, with its lock in it."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from fnqs.errors import InputError
from fnqs_train import run_folder
from fnqs_train.run_folder import LOCK_NAME, delete_run, is_empty, steps_done, used_alone

HOLDER = (
    "import sys, pathlib; from fnqs_train.run_folder import used_alone\n"
    "with used_alone(pathlib.Path(sys.argv[1]), 'fnqs-train'):\n"
    "    print('ready', flush=True); sys.stdin.read()"
)


def holder(folder) -> subprocess.Popen:
    """Start another process that holds a folder; returns when it does."""
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), "--resume"],
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    return process


def test_the_second_command_is_told_who_holds_the_folder_until_it_dies(tmp_path):
    folder = tmp_path / "runs" / "small"
    with holder(folder) as other:
        with (
            pytest.raises(InputError, match=rf"process {other.pid} on \S+ since .*\(fnqs-train .*--resume\) uses this"),
            used_alone(folder, "fnqs-train"),
        ):
            pass
        other.send_signal(signal.SIGKILL)
    assert (folder / LOCK_NAME).exists()  # left behind, without a lock on it
    with used_alone(folder, "fnqs-train"):
        assert str(os.getpid()) in (folder / LOCK_NAME).read_text()
    assert not (folder / LOCK_NAME).exists()


def test_a_folder_made_for_nothing_goes_away(tmp_path):
    with used_alone(tmp_path / "run", "fnqs-train"):
        assert is_empty(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with used_alone(tmp_path / "run", "fnqs-train"):
        (tmp_path / "run" / "config.toml").touch()
        assert not is_empty(tmp_path / "run")
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["config.toml"]


def test_never_two_at_once(tmp_path):
    """Eight threads enter and leave a hundred times; a lock file that was just removed lets nobody in."""
    inside, most, entered = [], [], []

    def enter():
        for _ in range(100):
            try:
                with used_alone(tmp_path, "fnqs-train"):
                    inside.append(1)
                    most.append(len(inside))
                    entered.append(1)
                    inside.pop()
            except InputError:
                continue

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(entered) > 8


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_folder.fcntl, "flock", refuse)
    with (
        pytest.warns(
            UserWarning, match=r"this file system has no locks \(No locks available\); see to it that no other"
        ),
        used_alone(tmp_path, "fnqs-train"),
    ):
        pass


def test_a_run_is_deleted_through_a_link_to_it(tmp_path):
    real, link = tmp_path / "scratch" / "run", tmp_path / "run"
    (real / "checkpoints" / "4").mkdir(parents=True)
    (real / "config.toml").touch()
    elsewhere = tmp_path / "kept"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    (real / "linked").symlink_to(elsewhere)
    link.symlink_to(real)
    assert steps_done(link) == 4
    with used_alone(link, "fnqs-train"):
        delete_run(link)
        assert [entry.name for entry in real.iterdir()] == [LOCK_NAME]
    assert link.is_symlink()
    assert list(real.iterdir()) == []
    assert (elsewhere / "file").exists()


def test_a_folder_of_something_else_is_not_deleted(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with used_alone(tmp_path, "fnqs-train"), pytest.raises(InputError, match="not a run folder"):
        delete_run(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
