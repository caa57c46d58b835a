import io

from fnqs_train.monitoring.progress import TrainingProgress, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_output_is_a_line_now_and_then_and_the_last_one():
    stream = io.StringIO()
    with TrainingProgress(300, plain_seconds=3600, stream=stream) as progress:
        progress.update(1, -0.4, 1e-2, 0.1, 0.55, seconds=60.0)
        progress.message("checkpoint saved")
        for step in range(2, 301):
            progress.update(step, -0.489312, 4.1e-5, 0.0123, 0.5, seconds=0.25)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("step   1/300  E/N -0.400(10) Ha")
    assert lines[1] == "checkpoint saved"
    assert lines[2] == "step 300/300  E/N -0.48931(4) Ha  var/N 1.23e-02 Ha²  acc 0.50  0.25 s/step  0 s left"
    assert "\x1b" not in stream.getvalue()


def test_time_left_forgets_the_compilation():
    stream = io.StringIO()
    with TrainingProgress(1000, first=900, plain_seconds=0, stream=stream) as progress:
        progress.update(901, -0.4, None, 0.1, 0.5, seconds=60.0)
        progress.update(902, -0.4, None, 0.1, 0.5, seconds=0.5)
    assert stream.getvalue().splitlines()[-1].endswith("0.5 s/step  49 s left")


def test_a_terminal_shows_one_live_line_and_keeps_the_last(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with TrainingProgress(2, stream=stream) as progress:
        progress.update(1, -0.4, 1e-2, 0.1, 0.5, seconds=1.0)
        progress.message("skipped bcc-n08-00001")
        progress.update(2, -0.5, 1e-2, 0.1, 0.5, seconds=1.0)
    text = stream.getvalue()
    assert "skipped bcc-n08-00001" in text
    assert text.rstrip("\n").splitlines()[-1].endswith("0 s left")
    assert "E/N -0.500(10) Ha" in text.splitlines()[-1]


def test_durations():
    assert [duration(x) for x in (0.4, 45, 200, 7500)] == ["0 s", "45 s", "3 min 20 s", "2 h 05 min"]
