import io
import json

import matplotlib.image
import numpy as np
import pytest

from fnqs_eval.energies.table import EnergyResult, print_table, write_json
from fnqs_eval.plots import draw_training, plot_training, running_mean, running_median
from fnqs_train.models.shipped import MODELS
from fnqs_train.monitoring.metrics import read_metrics
from fnqs_train.monitoring.metrics_row import column

RESULT = EnergyResult(
    identifier="bcc-n08-00123",
    number=8,
    density_parameter=1.31,
    phase="bcc",
    twist=(0.0, 0.0, 0.0),
    energy_per_atom=-0.489312,
    error_per_atom=4.1e-5,
    variance_per_atom=0.0123,
    acceptance=0.512,
    v_score=1.2e-3,
)
OTHER = EnergyResult(
    identifier="a rather long name of a file.extxyz#199",
    number=128,
    density_parameter=1.2,
    phase="liquid-atomic",
    twist=(0.25, 0.5, 0.0),
    energy_per_atom=-0.5,
    error_per_atom=float("nan"),
    variance_per_atom=0.05,
    acceptance=0.4,
    v_score=float("inf"),
    label_energy_per_atom=-0.51234,
    flags=["few effective samples", "far from the training set"],
    steps=0,
)


def table_of(results, **options):
    stream = io.StringIO()
    print_table(results, stream=stream, **options)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_table_shows_everything_aligned():
    lines = table_of([RESULT, OTHER], title="runs/quickstart, step 100")
    text = "\n".join(lines)
    assert lines[0] == "runs/quickstart, step 100"
    first = next(line for line in lines if "bcc-n08-00123" in line)
    second = next(line for line in lines if "199" in line)
    for shown in ("8", "1.310", "bcc", "Γ", "-0.48931(4)", "1.23e-02", "0.51", "1.2e-03"):
        assert shown in first.split()
    for shown in ("128", "(0.25 0.5 0)", "-0.500000", "-0.51234", OTHER.identifier):
        assert shown in second
    assert first.index("-0.48931(4)") + len("-0.48931(4)") == second.index("-0.500000") + len("-0.500000")
    assert f"{OTHER.identifier}: few effective samples; far from the training set" in lines
    assert "GPa" not in text
    assert "…" not in text


def test_columns_nobody_fills_are_left_out():
    assert "label" not in "\n".join(table_of([RESULT]))
    assert "steps" not in "\n".join(table_of([RESULT]))


def test_json_is_complete_valid_and_whole(tmp_path):
    path = tmp_path / "new" / "energies.json"
    write_json(path, [RESULT, OTHER], {"checkpoint": "runs/quickstart", "step": 100})
    document = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert document["results"][0]["energy_per_atom"] == -0.489312
    assert document["results"][1]["error_per_atom"] is None
    assert document["results"][1]["flags"] == OTHER.flags
    assert document["provenance"]["step"] == 100
    with pytest.raises(TypeError):
        write_json(path, [], {"bad": object()})
    assert json.loads(path.read_text()) == document


def test_running_mean_leaves_gaps_out():
    values = np.arange(100.0)
    values[50] = np.nan
    smooth, width = running_mean(values)
    assert width == 5
    np.testing.assert_allclose(smooth[2:48], values[2:48], rtol=1e-13)  # sums of five float64
    assert smooth[50] == 50
    assert smooth[0] == 1


def test_running_median_leaves_gaps_and_outliers_out():
    values = np.arange(100.0)
    values[50], values[20], values[90:98] = np.nan, 1e6, np.nan
    smooth, width = running_median(values)
    assert width == 5
    np.testing.assert_array_equal(smooth[23:48], values[23:48])
    assert smooth[20] == 21  # of 18, 19, 1e6, 21, 22
    assert smooth[50] == 50
    assert np.isnan(smooth[92:96]).all()


PANELS = (("energy_per_atom", running_mean), ("variance_per_atom", running_median))
PANELS += (("acceptance", running_mean), ("seconds_per_step", running_mean))


def lines_of(axis):
    """The dots and the smooth line of a panel, as (x, y) pairs."""
    return [np.array(line.get_data(), np.float64) for line in axis.lines]


def test_every_panel_of_a_training_shows_its_numbers(tmp_path):
    rows = read_metrics(MODELS / "foundation")  # the record of a real run
    steps = [row["step"] for row in rows]
    figure = draw_training(rows, title="try")
    assert len(figure.axes) == len(PANELS)
    for axis, (key, smoothed) in zip(figure.axes, PANELS, strict=True):
        values = column(rows, key)
        dots, smooth = lines_of(axis)
        np.testing.assert_array_equal(dots, [steps, values])
        np.testing.assert_array_equal(smooth, [steps, smoothed(values)[0]])
        (low, high), shown = axis.get_ylim(), smooth[1][len(smooth[1]) // 2 :]
        assert np.all((shown > low) & (shown < high))  # the second half is never cut off
    assert figure.axes[1].get_yscale() == "log"
    plot_training(rows, tmp_path / "training.png", title="try")
    height, width, _ = matplotlib.image.imread(tmp_path / "training.png").shape
    assert (width, height) == tuple(150 * figure.get_size_inches())
    assert [path.name for path in tmp_path.iterdir()] == ["training.png"]


def test_a_record_with_gaps_or_nothing_in_it_is_drawn():
    rows = read_metrics(MODELS / "foundation")[:60]
    rows[30]["energy_per_atom"] = None
    dots, _ = lines_of(draw_training(rows).axes[0])
    assert np.flatnonzero(np.isnan(dots[1])).tolist() == [30]
    assert all(len(line[0]) == 0 for axis in draw_training([]).axes for line in lines_of(axis))
    for axis in draw_training([{"step": 1}]).axes:
        assert [line[0].tolist() for line in lines_of(axis)] == [[1], [1]]
        assert np.all(np.isnan(lines_of(axis)[0][1]))
