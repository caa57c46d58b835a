import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnqs.errors import InputError
from fnqs_data.store.write import write_dataset
from fnqs_data.stream.mixture import RESOLUTION, integer_weights, mixture_weights, systematic_sample


@given(
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=50).filter(lambda w: max(w) > 1e-3),
    random=st.floats(0, 1, exclude_max=True),
)
def test_a_sample_holds_nothing_twice_and_nothing_of_weight_zero(weights, random):
    shares = integer_weights(np.array(weights))
    count = max(1, int(shares.sum()) // RESOLUTION)
    sample = systematic_sample(shares, count, random)
    assert len(sample) == count
    assert np.all(np.diff(sample) > 0)
    assert np.all(shares[sample] > 0)
    assert np.all(np.isin(np.flatnonzero(shares == RESOLUTION), sample)) or shares.sum() % RESOLUTION


def test_weights_of_phases_and_densities_multiply(tmp_path, make_record):
    dataset = write_dataset(tmp_path / "set", [make_record(i, 8, ("bcc", "pa3")[i % 2]) for i in range(20)])
    r_s = dataset.wigner_seitz_radii
    middle = float(np.median(r_s))
    indices = np.arange(5, 20)
    weights = mixture_weights(dataset, indices, phases=[("pa3", 3.0)], densities=[(middle, 9.0, 0.5)])
    expected = np.where(indices % 2, 3.0, 1.0) * np.where(r_s[indices] >= middle, 0.5, 1.0)
    assert np.array_equal(weights, expected)
    assert mixture_weights(dataset, indices) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phases": [("bc", 1.0)]}, "'bc'; it holds bcc, pa3"),
        ({"phases": [("bcc", -1.0)]}, "weight of bcc"),
        ({"densities": [(7.0, 8.0, 1.0)]}, "between 7.0 and 8.0"),
        ({"densities": [(0.0, 9.0, float("nan"))]}, "weight of r_s"),
        ({"phases": [("bcc", 0.0), ("pa3", 0.0)]}, "every selected"),
    ],
)
def test_senseless_mixtures_are_input_errors(tmp_path, make_record, options, message):
    dataset = write_dataset(tmp_path / "set", [make_record(i, 8, ("bcc", "pa3")[i % 2]) for i in range(4)])
    with pytest.raises(InputError, match=message):
        mixture_weights(dataset, np.arange(4), **options)
