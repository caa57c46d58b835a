import io

from fnqs.cli.live_line import LiveLine, duration
from fnqs_train.monitoring.learning import Gain
from fnqs_train.monitoring.progress import EXPLANATION, TrainingProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_output_is_a_line_now_and_then_and_the_last_one():
    stream = io.StringIO()
    with TrainingProgress(300, plain_seconds=3600, stream=stream) as progress:
        progress.update(1, None, 0.1, 0.55, seconds=60.0)
        progress.message("checkpoint saved")
        for step in range(2, 301):
            progress.update(step, Gain(step, -0.0123, 4.1e-4), 0.0123, 0.5, seconds=0.25)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "step   1/300  var/N 1.00e-01 Ha²  acc 0.55  60 s/step  4 h 59 min left"
    assert lines[1] == "checkpoint saved"
    assert lines[2] == EXPLANATION
    assert lines[3].startswith("step 300/300  E - E₀ -12.3(4) mHa  var/N 1.23e-02 Ha²  acc 0.50")
    assert lines[3].endswith("0 s left")
    assert "\x1b" not in stream.getvalue()


def test_time_left_comes_from_steps_that_compile_nothing():
    stream = io.StringIO()
    with TrainingProgress(1000, first=900, plain_seconds=0, stream=stream) as progress:
        for step, number, seconds in ((901, 8, 60.0), (902, 8, 0.5), (903, 4, 41.0), (904, 4, 0.5)):
            progress.program("equilibration", number)
            progress.program("training", number)
            progress.update(step, None, 0.1, 0.5, seconds=seconds)
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["compiling N = 8, equilibration ...", "compiling N = 8, training ..."]
    assert lines[2].endswith("time left not known before a step without compilation")
    assert lines[3].endswith("0.5 s/step  49 s left")
    assert lines[4:6] == ["compiling N = 4, equilibration ...", "compiling N = 4, training ..."]
    assert [line.endswith(f"0.5 s/step  {left} s left") for line, left in zip(lines[6:], (48, 48), strict=True)]
    assert not any("41" in line or "60 s" in line for line in lines)


def test_a_step_beside_a_compilation_is_not_counted():
    stream = io.StringIO()
    with TrainingProgress(100, plain_seconds=0, stream=stream) as progress:
        progress.program("training", 8)
        progress.update(1, None, 0.1, 0.5, seconds=40.0)
        for step, seconds in ((2, 5.0), (3, 1.0)):
            progress.program("training", 8)
            if step == 2:
                progress.slowed()
            progress.update(step, None, 0.1, 0.5, seconds=seconds)
    lines = stream.getvalue().splitlines()
    assert lines[2].endswith("time left not known before a step without compilation")
    assert lines[3].endswith("1 s/step  1 min 37 s left")


def test_a_terminal_shows_one_live_line_and_keeps_the_last(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with TrainingProgress(2, stream=stream) as progress:
        progress.update(1, None, 0.1, 0.5, seconds=1.0)
        progress.message("skipped bcc-n08-00001")
        progress.update(2, Gain(2, -0.02, 0.001), 0.1, 0.5, seconds=1.0)
    text = stream.getvalue()
    assert "skipped bcc-n08-00001" in text
    assert text.rstrip("\n").splitlines()[-1].endswith("0 s left")
    assert "E - E₀ -20.0(10) mHa" in text.splitlines()[-1]


def test_what_is_being_done_stands_beside_what_was_reached(monkeypatch):
    clock = iter([0.0, 100.0, 101.0, 130.0, 130.0])
    monkeypatch.setattr("fnqs.cli.live_line.time.monotonic", lambda: next(clock))
    line = LiveLine(stream=Terminal())
    line.doing("compiling N = 8, training", lasting=True)
    assert line.__rich__().plain == "compiling N = 8, training"  # for a second only
    line.reached("step 1/2")
    assert line.__rich__().plain == "step 1/2  compiling N = 8, training for 30 s"


def test_nothing_is_shown_by_all_processes_but_one():
    stream = io.StringIO()
    with TrainingProgress(1, plain_seconds=0, stream=stream, quiet=True) as progress:
        progress.program("training", 8)
        progress.message("a message")
        progress.update(1, None, 0.1, 0.5, seconds=1.0)
    assert stream.getvalue() == ""


def test_durations():
    assert [duration(x) for x in (0.4, 45, 200, 7500)] == ["0 s", "45 s", "3 min 20 s", "2 h 05 min"]
