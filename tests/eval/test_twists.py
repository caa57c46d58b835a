import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnqs.configuration import fold_twist
from fnqs.errors import InputError
from fnqs_eval.energies.twists import (
    TwistSet,
    monkhorst_pack,
    parse_twists,
    random_twists,
    reduce_by_time_reversal,
    twist_average,
)

SIZES = st.tuples(*[st.integers(1, 5)] * 3)


def as_set(twists):
    return {tuple(row) for row in (np.round(fold_twist(np.asarray(twists)), 9) + 0.0).tolist()}


@given(SIZES)
@settings(deadline=None)
def test_grids_are_closed_under_negation_and_equally_spaced(sizes):
    grid = monkhorst_pack(sizes)
    assert len(as_set(grid)) == np.prod(sizes)
    assert as_set(grid) == as_set(-grid)
    assert np.all((grid > -0.5) & (grid <= 0.5))
    # exp(2 pi i n theta) averages to zero along each axis for 0 < n < q: the grid integrates those waves exactly.
    for axis, size in enumerate(sizes):
        for n in range(1, size):
            assert abs(np.mean(np.exp(2j * np.pi * n * grid[:, axis]))) < 1e-12  # rounding of float64


@given(SIZES)
@settings(deadline=None)
def test_reduction_keeps_weights_and_averages_of_even_functions(sizes):
    chosen = parse_twists("x".join(map(str, sizes)))
    grid = monkhorst_pack(sizes)
    assert chosen.weights.sum() == pytest.approx(1, abs=1e-12)
    assert as_set(chosen.twists) | as_set(-chosen.twists) == as_set(grid)
    both = as_set(chosen.twists) & as_set(-chosen.twists)
    for twist in both:  # only those that are their own negative keep it
        assert as_set([twist]) == as_set([[-x for x in twist]])

    def even(twists):
        return np.cos(2 * np.pi * twists @ [1.0, 2.0, -1.0]) + np.cos(2 * np.pi * twists @ [0.0, 1.0, 3.0])

    assert np.sum(chosen.weights * even(chosen.twists)) == pytest.approx(np.mean(even(grid)), abs=1e-12)


def test_known_grids():
    assert as_set(parse_twists("1x1x1").twists) == {(0.0, 0.0, 0.0)}
    two = parse_twists("2x2x2")
    assert as_set(two.twists) == {(0.25, s, t) for s in (0.25, -0.25) for t in (0.25, -0.25)}
    np.testing.assert_allclose(two.weights, 0.25)
    assert len(parse_twists("4x4x4").twists) == 32
    three = parse_twists("3x3x3")
    assert len(three.twists) == 14  # 13 pairs and the origin
    assert dict(zip(map(tuple, three.twists.tolist()), three.weights, strict=True))[(0, 0, 0)] == pytest.approx(1 / 27)
    halves, weights = reduce_by_time_reversal(np.array([[0.5, 0, 0], [-0.5, 0, 0]]), np.array([0.5, 0.5]))
    assert halves.tolist() == [[0.5, 0, 0]]
    assert weights.tolist() == [1.0]


def test_random_twists_are_seeded_uniform_and_extendable():
    first = parse_twists("random:32", 3)
    assert first.random
    np.testing.assert_array_equal(first.twists, parse_twists("random:32", 3).twists)
    np.testing.assert_array_equal(first.twists[:8], parse_twists("random:8", 3).twists)
    assert not np.array_equal(first.twists, parse_twists("random:32", 4).twists)
    many = random_twists(4000, 0)
    assert np.all((many > -0.5) & (many <= 0.5))
    # The mean of 4000 numbers of standard deviation 0.29 is known to 0.0046; four times that.
    assert np.all(np.abs(many.mean(axis=0)) < 0.019)


def test_lists():
    listed = parse_twists("0,0,0;0.75,0,0.5")
    assert listed.twists.tolist() == [[0, 0, 0], [-0.25, 0, 0.5]]
    assert listed.weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0x4x4", "each number of a grid is 1 or more"),
        ("100x100x100", "10000 at most"),
        ("random:0", "1 to 10000"),
        ("random:-3", "give a grid"),
        ("4x4", "give a grid"),
        ("", "give a grid"),
        ("gamma", "give a grid"),
        ("1.5,0,0", "above -0.5 and below 1"),
        ("-0.5,0,0", "above -0.5 and below 1"),
        ("nan,0,0", "above -0.5 and below 1"),
        ("0.5,0", "give a grid"),
    ],
)
def test_what_is_refused(text, wanted):
    with pytest.raises(InputError, match=wanted) as error:
        parse_twists(text)
    assert "\n" not in str(error.value)


def test_average_and_its_error():
    grid = TwistSet("", np.zeros((2, 3)), np.array([0.25, 0.75]))
    mean, error = twist_average(np.array([-1.0, -2.0]), np.array([0.04, 0.01]), grid)
    assert mean == pytest.approx(-1.75)
    assert error == pytest.approx(np.hypot(0.01, 0.0075))
    # Random twists: the claimed error is the spread of the averages over many draws.
    rng = np.random.default_rng(0)
    averages = []
    for _ in range(400):
        energies = rng.normal(scale=0.02, size=16) + rng.normal(scale=0.01, size=16)
        sample = TwistSet("", np.zeros((16, 3)), np.full(16, 1 / 16), random=True)
        averages.append(twist_average(energies, np.full(16, 0.01), sample))
    means, errors = np.array(averages).T
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(np.std(means), rel=0.15)  # 400 draws know it to 3.5 %, times 4
