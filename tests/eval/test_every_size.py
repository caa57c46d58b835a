"""Evaluations on several processor devices of one process end, whatever the size and the number of configurations."""

import sys
from pathlib import Path
from subprocess import run

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "every_size.py"


@pytest.mark.parametrize("devices", [2, 4])
def test_evaluations_on_several_devices_end(devices):
    """Small cells here; `tests/benchmarks/every_size.py` has all sizes. The limit is for a busy machine."""
    options = ["--devices", str(devices), "--sizes", "2", "16", "--counts", "1", "3", "--limit", "300"]
    found = run([sys.executable, PROGRAM, *options], capture_output=True, text=True, timeout=1300)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 of 4 cases did not end" in found.stdout
