"""Rows that processes have prepared a share of, in true processes with two devices each."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from free_port import free_port

from fnqs_train.distributed.exchange import gather_rows
from fnqs_train.distributed.sharding import make_mesh

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("processes", [2, 3])
def test_all_processes_get_all_rows_bit_for_bit(tmp_path, processes):
    port = free_port()
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2",
        "FNQS_CACHE": str(tmp_path / "cache"),
    }
    command = [sys.executable, TESTS / "train" / "exchange_run.py"]
    running = [
        subprocess.Popen(
            [*command, str(process), str(processes), str(port)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    for process in running:
        said, complaint = process.communicate(timeout=200)
        assert said.endswith("checked 84 rows of 7 arrays\n"), said + complaint
        assert process.returncode == 0


def test_alone_the_rows_stay_where_they_are():
    tree = {"rows": np.arange(4)}
    assert gather_rows(make_mesh(2), tree, 4) is tree


def test_the_training_input_of_true_processes_survives_kills(tmp_path):
    # Fifty trials, and whole epochs, are in tests/benchmarks/stream_restart.py; here one: four processes, then two.
    script = TESTS / "benchmarks" / "stream_restart.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path, "1", "35"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.stdout.endswith("1 of 1 trials identical\n"), done.stdout + done.stderr
    assert done.returncode == 0
