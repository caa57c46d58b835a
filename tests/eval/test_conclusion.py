"""What is concluded from the results of a protocol: three error bars, and nothing from less."""

import pytest

from fnqs_eval.transfer.conclusion import conclusions
from fnqs_eval.transfer.item_result import ItemResult
from fnqs_eval.transfer.learning_curve import Curve, Point


def item(zero_shot, tuned, scratch, error=0.001, count=40):
    start, end = Point(0, zero_shot, error), Point(5, tuned, error)
    return ItemResult(
        name="held-out",
        configurations=tuple(f"c{i}" for i in range(count)),
        numbers=(8,),
        densities=(1.6,) * count,
        phases=("sc",),
        train="all",
        walkers=6,
        within=5e-4,
        zero_shot=start,
        limit=end,
        fine_tuned=Curve((start, end), 0.5),
        from_scratch=Curve((Point(5, scratch, error),), 0.5),
    )


def test_what_is_clear_is_said_with_its_error_bars():
    scratch, tuned = conclusions([item(-0.52, -0.53, -0.50)])
    # Two errors of 1 mHa make 1.4; 20 mHa are 14 of these, 10 are 7.
    assert scratch == (
        "held-out: without a step on these 40 configurations, the foundation model lies 20.0(14) mHa per atom below "
        "5 steps from scratch, 14 error bars."
    )
    assert tuned == "held-out: 5 steps of fine-tuning lower its energy by 10.0(14) mHa per atom, 7 error bars."


def test_the_other_way_round_is_said_too():
    scratch, tuned = conclusions([item(-0.52, -0.51, -0.53)])
    assert "the foundation model lies 10.0(14) mHa per atom above 5 steps from scratch, 7 error bars" in scratch
    assert "raise its energy by 10.0(14) mHa" in tuned


@pytest.mark.parametrize("difference", [0.0, 0.0042, -0.0042])
def test_nothing_is_concluded_from_less_than_three_error_bars(difference):
    scratch, tuned = conclusions([item(-0.52, -0.52 - difference, -0.52 + difference, count=1)])
    assert "nothing can be concluded" in scratch
    assert "nothing can be concluded" in tuned
    assert "on this configuration" in scratch
    for said in conclusions([item(-0.52, -0.52 - 1.02 * 0.0042426, -0.52 + 1.02 * 0.0042426)]):
        assert "3 error bars" in said


def test_nothing_is_concluded_from_numbers_that_are_not_there():
    assert all("nothing can be concluded" in said for said in conclusions([item(float("nan"), -0.5, -0.5)]))
