from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fnqs.errors import InputError
from fnqs_data.generate.recipe import parse_recipe
from fnqs_data.store.splits import HeldOut, split_records, straddling


def test_each_rule_has_its_split_and_their_order():
    held_out = HeldOut(r_s=((1.5, 1.6),), phases=("fcc",), temperature=((900.0, 1100.0),), trajectories=("run-3",))
    assert held_out.split("fcc", 1.55, 1000.0, "run-3") == "held-out-phase"
    assert held_out.split("bcc", 1.55, 1000.0, "run-3") == "held-out-density"
    assert held_out.split("bcc", 1.7, 1100.0, "run-3") == "held-out-temperature"
    assert held_out.split("bcc", 1.7, None, "run-3") == "held-out-trajectory"
    assert held_out.split("bcc", 1.7, 800.0, "run-4") == "train"
    assert HeldOut().split("bcc", 1.7) == "train"


trajectories = st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=1, max_size=30)


# The fixture is a function without state, so it need not be made anew for every example.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trajectories, st.data())
def test_no_trajectory_straddles_training_and_test(make_record, names, data):
    temperatures = st.none() | st.floats(0, 2000)
    records = [make_record(i, 2, trajectory=name, temperature=data.draw(temperatures)) for i, name in enumerate(names)]
    held_out = HeldOut(
        temperature=((1000.0, 2000.0),),
        r_s=((2.4, 2.5),),
        trajectory_fraction=data.draw(st.sampled_from([0.0, 0.4])),
    )
    made = list(split_records(records, held_out))
    assert straddling((r.trajectory, r.split) for r in made) == []
    for before, after in zip(records, made, strict=True):
        assert replace(after, split=before.split, configuration=before.configuration) == before
        # Only company in a trajectory takes more out of training than the record's own split.
        own = held_out.split_of(before)
        assert after.split == own or (own == "train" and before.trajectory and after.split == "held-out-trajectory")


def test_a_fraction_of_the_trajectories_is_held_out_by_name(make_record):
    held_out = HeldOut(trajectory_fraction=0.25)
    splits = [held_out.split("bcc", 1.7, None, f"run-{i}") for i in range(2000)]
    # Binomial: 500 with a standard deviation of 19; five of them.
    assert abs(splits.count("held-out-trajectory") - 500) < 95
    assert {HeldOut(trajectory_fraction=1.0).split("bcc", 1.7, None, f"run-{i}") for i in range(50)} == {
        "held-out-trajectory"
    }
    record = make_record(0, 2)
    assert held_out.split_of(record) == held_out.split("bcc", 1.7, None, record.identifier)


def test_straddling_trajectories_are_named():
    pairs = [("b", "train"), ("b", "held-out-density"), ("a", "train"), ("", "train"), ("", "held-out-phase")]
    assert straddling(pairs) == ["b"]


def test_a_recipe_may_hold_out_temperatures_and_trajectories():
    text = (
        'name = "x"\n[held_out]\ntemperature = [[900, 1100]]\ntrajectory_fraction = 0.1\n'
        '[[family]]\nphase = "sc"\nnumber = [8]\nr_s = 1.5\n'
    )
    held_out = parse_recipe(text).held_out
    assert held_out.temperature == [(900, 1100)]
    assert held_out.trajectory_fraction == 0.1
    with pytest.raises(InputError, match="trajectory_fraction"):
        parse_recipe(text.replace("0.1", "1.5"))
