"""What an evaluation says of itself, and that the time left does not come from compilations."""

import pytest

from fnqs_eval.energies import sampling_progress
from fnqs_eval.energies.sampling_progress import SamplingProgress


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""
    now = [0.0]
    monkeypatch.setattr(sampling_progress.time, "monotonic", lambda: now[0])
    return now


def test_it_says_what_it_is_doing_once():
    lines = []
    progress = SamplingProgress(lines.append, [8, 8])
    progress.doing("integrals of 2 configurations, N = 8")
    assert progress.program("equilibration", 8, False)
    assert progress.program("measurement", 8, False)
    assert not progress.program("measurement", 8, False)
    assert progress.program("measurement", 8, True)
    assert lines == [
        "integrals of 2 configurations, N = 8 ...",
        "compiling N = 8, equilibration ...",
        "compiling N = 8, measurement ...",
        "compiling N = 8, measurement ...",
    ]


def test_the_time_left_comes_from_parts_without_compilation(clock):
    lines = []
    progress = SamplingProgress(lines.append, [8, 8], before=1)
    clock[0] = 40.0
    progress.part(8, [0.1, 0.1], 0.009, None)  # compiled for most of 40 s
    assert lines == ["1 of 3 energies, error bars up to 9 mHa per atom"]
    clock[0] = 44.0
    progress.part(8, [0.3, 0.3], 0.005, 4.0)
    assert len(lines) == 1  # too soon for another one
    clock[0] = 52.0
    progress.part(8, [0.5, 0.5], 0.004, 8.0)
    # 0.8 configurations took 12 s, and there is one left of two.
    assert lines[-1] == "1 of 3 energies, error bars up to 4 mHa per atom, about 15 s left"
    progress.part(8, [1.0, 0.7], 0.0033, 6.0)
    progress.finished([8])
    clock[0] = 66.0
    progress.part(8, [0.8], 0.003, 4.0)
    # 1.6 configurations took 22 s, and a fifth of one is left.
    assert lines[-1] == "2 of 3 energies, error bars up to 3 mHa per atom, about 3 s left"
    progress.finished([8])
    assert lines[-1] == "3 of 3 energies"
