"""Records as bytes."""

import msgspec
import numpy as np

from fnqs_data.store.record import decode_record, encode_record


def test_stress_and_corrections_are_kept_to_the_bit(make_record):
    stress = np.random.default_rng(0).normal(size=(3, 3))
    record = make_record(0, 8, stress=stress, potential_correction=0.1, kinetic_correction=-0.3)
    kept = decode_record(encode_record(record))
    np.testing.assert_array_equal(kept.stress, stress)
    assert (kept.potential_correction, kept.kinetic_correction) == (0.1, -0.3)


def test_records_from_before_these_labels_are_read(make_record):
    record = make_record(0, 8, digest="00ff")
    fields = msgspec.msgpack.decode(encode_record(record))
    old = decode_record(msgspec.msgpack.encode(fields[: fields.index("00ff") + 1]))
    assert (old.stress, old.potential_correction, old.kinetic_correction) == (None, None, None)
    assert old.identifier == record.identifier
