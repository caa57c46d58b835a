"""The arithmetic behind the benchmark's report; the timings themselves are no tests."""

import importlib.util
import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parent / "benchmarks"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


report, clock = load("phase_report"), load("phase_clock")


def row(milliseconds: float) -> dict:
    return {
        "milliseconds": milliseconds,
        "spread": 0.1 * milliseconds,
        "rounds": 3,
        "operations": 1e9,
        "rate": 1e9,
        "roofline": 0.01,
        "buffer_megabytes": 1.0,
        "peak_megabytes": None,
        "compile_seconds": 1.0,
    }


def made_up(power: float, faster: float = 1.0) -> dict:
    """A report in which every phase takes N^power milliseconds per walker, divided by `faster`."""
    numbers = {
        str(n): {
            "crystal": "bcc",
            "phases": {name: row(4 * n**power / faster) for name in report.NAMES},
            "data": {
                "wait_milliseconds": 0.0,
                "step_milliseconds": 1.0,
                "fraction": 0.0,
                "longest_milliseconds": 0.0,
            },
            "compile": {"init": 1.0, "equilibration": 1.0, "step": 1.0, "step_warm": 1.0},
            "peak_megabytes": 1.0,
            "product_rate": {"float32": 1e11, "float64": 1e11},
        }
        for n in (8, 16, 54)
    }
    return {
        "settings": {"walkers": 4, "sweeps": 10},
        "environment": {"processor": "P", "cores": 2, "backend": "cpu", "jax": "0", "date": "today", "commit": "a"},
        "numbers": numbers,
        "exponents": report.exponents(numbers, 4),
    }


@given(power=st.floats(-1, 4), unit=st.floats(1e-6, 1e3))
def test_a_power_law_gives_its_exponent_without_error(power, unit):
    numbers = [8, 16, 32, 54]
    slope, error = report.growth_exponent(numbers, [unit * n**power for n in numbers])
    # Rounding of four logarithms of size 10 against a span of 2 in log N.
    assert slope == pytest.approx(power, abs=1e-12)
    assert error == pytest.approx(0, abs=1e-12)


def test_the_error_of_an_exponent_is_that_of_the_scatter():
    numbers, generator, noise = [8, 16, 32, 54], np.random.default_rng(0), 0.2
    fits = [
        report.growth_exponent(numbers, np.array(numbers, float) ** 2 * np.exp(noise * generator.normal(size=4)))
        for _ in range(4000)
    ]
    slopes, errors = np.array(fits).T
    # The variance of 4000 slopes is known to 2 %, the mean of 4000 variances of 2 degrees of freedom to 2 %.
    assert np.mean(errors**2) == pytest.approx(np.var(slopes), rel=0.1)


def test_two_sizes_give_an_exponent_and_no_error():
    assert report.growth_exponent([16, 54], [16.0**3, 54.0**3]) == (pytest.approx(3), None)


@pytest.mark.parametrize(("numbers", "times"), [([8, 8], [1.0, 2.0]), ([8, 16], [1.0, 0.0])])
def test_no_exponent_without_two_sizes_or_with_a_time_of_zero(numbers, times):
    with (
        np.errstate(divide="ignore"),
        pytest.raises(ValueError, match="no exponent"),
    ):
        report.growth_exponent(numbers, times)


def test_a_report_survives_json_and_compares_with_another():
    old, new = (json.loads(json.dumps(r)) for r in (made_up(2.0), made_up(2.0, faster=2.0)))
    ratios = report.ratios(new, old)
    assert set(ratios) == {"8", "16", "54"}
    assert all(value == pytest.approx(0.5) for phases in ratios.values() for value in phases.values())
    del old["numbers"]["8"], old["numbers"]["16"]["phases"]["ewald"]
    ratios = report.ratios(new, old)
    assert set(ratios) == {"16", "54"}
    assert "ewald" not in ratios["16"]
    assert "0.50" in report.comparison_text(new, old)


def test_a_comparison_says_what_else_differs():
    old, new = made_up(2.0), made_up(2.0)
    new["settings"]["walkers"], new["environment"]["commit"] = 8, "b"
    assert report.differences(new, old) == ["walkers: 4 -> 8"]


def test_tables_and_picture_hold_every_phase(tmp_path):
    made = made_up(2.0)
    text = report.table_text(made)
    assert all(text.count(label) == 4 for label in report.NAMES.values())
    assert made["exponents"]["step"]["exponent_16_to_54"] == pytest.approx(2)
    report.plot(made, tmp_path / "phases.png")
    assert (tmp_path / "phases.png").read_bytes().startswith(b"\x89PNG")


def test_phases_take_turns_and_short_ones_are_repeated():
    calls = []
    runs = {"short": lambda: calls.append("short"), "long": lambda: (calls.append("long"), time.sleep(0.03))}
    times = clock.interleaved_times(runs, 0.0)
    assert [len(t) for t in times.values()] == [clock.FEWEST] * 2
    turns = [name for name, before in zip(calls, [None, *calls], strict=False) if name != before]
    assert turns == ["short", "long"] * (clock.FEWEST + 1)
    assert calls.count("long") == 2 + clock.FEWEST
    assert calls.count("short") > 100
