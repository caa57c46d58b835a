import json
import re
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.errors import InputError
from fnqs_train.monitoring.metrics import MetricsRecord, read_metrics
from fnqs_train.monitoring.metrics_row import column


def write_steps(folder, steps, **options):
    with MetricsRecord(folder, **options) as record:
        for step in steps:
            record.write(step, {"energy_per_atom": -0.1 * step})


def test_values_of_numpy_and_jax_become_json(tmp_path):
    with MetricsRecord(tmp_path) as record:
        record.write(
            np.int64(1),
            {
                "energy_per_atom": jnp.float32(-0.5),
                "variance_per_atom": np.float64("nan"),
                "update_norm": np.float32("inf"),
                "non_finite": ["bcc"],
                "fallback": np.bool_(True),
            },
        )
        assert read_metrics(tmp_path) == [  # readable while the run goes on
            {
                "step": 1,
                "energy_per_atom": -0.5,
                "variance_per_atom": None,
                "update_norm": None,
                "non_finite": ["bcc"],
                "fallback": True,
            }
        ]


def test_only_keys_of_the_definition_are_written_and_read(tmp_path):
    with MetricsRecord(tmp_path) as record, pytest.raises(KeyError, match="not a key of the record: seconds"):
        record.write(1, {"seconds": 0.5})
    assert read_metrics(tmp_path) == []
    with pytest.raises(KeyError, match="not a key of the record: seconds"):
        column([{"step": 1}], "seconds")
    rows = [{"step": 1, "acceptance": 0.5}, {"step": 2, "acceptance": None}, {"step": 3}]
    np.testing.assert_array_equal(column(rows, "acceptance"), [0.5, np.nan, np.nan])


def test_resume_cuts_back_and_forgets_a_half_written_line(tmp_path):
    write_steps(tmp_path, [10, 20, 30])
    path = tmp_path / "metrics.jsonl"
    with open(path, "a") as file:
        file.write('{"step": 40, "energy_per')
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20, 30]
    write_steps(tmp_path, [30, 40], resume_step=20)
    assert [row["step"] for row in read_metrics(path)] == [10, 20, 30, 40]
    assert read_metrics(path)[3] == {"step": 40, "energy_per_atom": -4.0}
    write_steps(tmp_path, [10], resume_step=0)  # killed before its first checkpoint
    assert len(read_metrics(path)) == 1


@pytest.mark.parametrize("length", range(60, 90, 3))
def test_a_record_cut_anywhere_is_read_up_to_the_cut(tmp_path, length):
    write_steps(tmp_path, [10, 20, 30])
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    assert len(read_metrics(path)) == whole[:length].count(b"\n")
    write_steps(tmp_path, [30], resume_step=20)
    for line in path.read_text().splitlines():
        json.loads(line)


def test_a_new_run_never_writes_over_an_old_record(tmp_path):
    write_steps(tmp_path, [10])
    with pytest.raises(InputError, match="there is a record already; resume that run or choose another name"):
        MetricsRecord(tmp_path)


def test_bad_records_are_named(tmp_path):
    with pytest.raises(InputError, match="no record of a training here"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nrubbish\n{"step": 2}\n')
    with pytest.raises(InputError, match="line 2 is not a line of a record"):
        read_metrics(tmp_path)


def test_disabled_imports_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    write_steps(tmp_path, [10])


def test_the_mirror_offline_needs_no_login_and_stays_one_run_with_its_config(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    options = {"wandb": "offline", "name": "try", "config": {"sampling": {"configurations_per_step": 7}}}
    write_steps(tmp_path / "run", [10, 20, 30], **options)
    identity = (tmp_path / "run" / "wandb-id").read_text().strip()
    (before,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    time.sleep(1.0)  # the name of an offline run has its second in it
    write_steps(tmp_path / "run", [30, 40], resume_step=20, **options)
    (after,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert after.parent != before.parent
    assert after.name == before.name == f"run-{identity}.wandb"

    # The lines of the first process are in it, too: -1, -2, -3 and -4, behind the few bytes that say how long they are.
    # W&B's own process writes the file, on a busy machine some time after the run has ended.
    def energies_in(content):
        return sorted(set(re.findall(rb"energy_per_atom[^\w-]{1,8}(-\d)", content)))

    limit = time.monotonic() + 60
    while time.monotonic() < limit and len(energies_in(after.read_bytes())) < 4:
        time.sleep(0.2)
    content = after.read_bytes()
    assert b"configurations_per_step" in content
    assert energies_in(content) == [b"-1", b"-2", b"-3", b"-4"]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [10, 20, 30, 40]


def test_the_mirror_online_without_a_login_is_a_sentence(tmp_path, monkeypatch):
    import wandb
    from wandb.errors import UsageError

    def refuse(**options):
        raise UsageError("api_key not configured (no-tty)")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(InputError, match=r"log in with `wandb login`, or use --set log\.wandb=offline"):
        MetricsRecord(tmp_path, wandb="online")


def test_a_mirror_that_fails_never_stops_the_training(tmp_path, monkeypatch):
    import wandb

    class Broken:
        def log(self, *args, **options):
            raise wandb.Error("the service is gone")

    monkeypatch.setattr(wandb, "init", lambda **options: Broken())
    with pytest.warns(UserWarning, match="the wandb mirror failed"):
        write_steps(tmp_path, [10, 20], wandb="offline")
    assert len(read_metrics(tmp_path)) == 2
