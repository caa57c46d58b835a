import math

import pytest

from fnqs_eval.transfer.learning_curve import Curve, Point, Ratio, Reached, evaluated_steps, mean_point, ratio, reached

LIMIT = Point(100, -0.5, 0.0)


def curve(*above, error=0.0, seconds=2.0):
    """A curve whose points, at 1, 2, 5 ..., lie so many mHa above the limit."""
    steps = evaluated_steps(10**6)
    points = [Point(step, LIMIT.energy + 1e-3 * x, 1e-3 * error) for step, x in zip(steps, above, strict=False)]
    return Curve(tuple(points), seconds)


@pytest.mark.parametrize(
    ("last", "steps"),
    [(1, [1]), (3, [1, 2, 3]), (10, [1, 2, 5, 10]), (60, [1, 2, 5, 10, 20, 50, 60]), (0, [])],
)
def test_evaluated_steps_are_geometric_and_end_with_the_last(last, steps):
    assert evaluated_steps(last) == steps


def test_there_means_there_for_good():
    found = reached(curve(9, 0.4, 3, 0.4, -0.2), LIMIT, 0.5e-3)
    assert found == Reached(step=10, seconds=20.0, latest=10, before=5, last=20)
    assert str(found) == "10"
    assert str(reached(curve(9, 0.4, 3), LIMIT, 0.5e-3)) == "not in 5"
    assert reached(curve(9, math.nan), LIMIT, 0.5e-3).step is None
    assert reached(curve(0.1, 0.1), LIMIT, 0.5e-3).before == 0


def test_errors_move_the_steps_by_one_standard_error():
    found = reached(curve(9, 0.9, 0.4, 0.1, error=0.2), Point(0, -0.5, 0.15e-3), 0.5e-3)
    # The error of a difference is 0.25 mHa: 0.4 may be 0.65, and 0.9 may be 0.65, but not 0.5.
    assert (found.step, found.latest, found.before) == (5, 10, 2)
    assert str(found) == "5 (to 10)"
    assert str(reached(curve(9, 0.4, error=0.2), LIMIT, 0.5e-3)) == "2 (or later)"


def test_ratios_are_bounded_by_the_gaps_and_the_errors():
    tuned, scratch = reached(curve(3, 0.1, 0.1), LIMIT, 0.5e-3), reached(curve(9, 9, 9, 9, 0.1), LIMIT, 0.5e-3)
    assert ratio(tuned, scratch) == Ratio(value=10.0, at_least=5.0)
    assert str(ratio(tuned, scratch)) == "10 (> 5)"
    assert ratio(tuned, scratch, seconds=(2.0, 1.0)) == Ratio(5.0, 2.5)
    never = reached(curve(9, 9, 9, 9, 9), LIMIT, 0.5e-3)
    assert str(ratio(tuned, never)) == "> 10"
    assert str(Ratio(2512.0, 0.0384)) == "2500 (> 0.038)"
    assert str(ratio(never, scratch)) == "unknown"
    without = Reached(step=0, seconds=0.0, latest=0, before=0, last=10)
    assert ratio(without, scratch) == Ratio(20.0, 10.0)  # no step counts as one
    assert ratio(tuned, without) == Ratio(0.0, None)


def test_the_mean_over_configurations():
    point = mean_point(3, [-0.4, -0.6], [3e-3, 4e-3])
    assert (point.step, point.energy) == (3, pytest.approx(-0.5))
    assert point.error == pytest.approx(2.5e-3)
