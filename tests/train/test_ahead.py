"""Programs compiled ahead of their use: calls compile nothing more, and what fails there fails where it is run."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs_data.store.write import write_dataset
from fnqs_data.stream.stream import ConfigurationStream
from fnqs_train.programs.ahead import Ahead, first_of_every_kind


@pytest.fixture
def compiled(caplog):
    """A function that counts the programs of a name compiled so far."""
    with caplog.at_level(logging.DEBUG, logger="jax"):
        yield lambda name: sum(
            "Finished XLA compilation" in record.getMessage() and f"jit({name})" in record.getMessage()
            for record in caplog.records
        )


def test_a_program_that_was_compiled_ahead_is_not_compiled_again(compiled):
    @jax.jit
    def shifted(tree, x, key):
        return tree["by"] + x + jax.random.normal(key, x.shape, x.dtype)

    key = jax.random.key(0)
    with Ahead() as ahead:
        assert not ahead.busy
        ahead.compile("shifted", shifted, {"by": np.ones(3, np.float32)}, jax.ShapeDtypeStruct((3,), np.float32), key)
        assert ahead.busy
        ahead.wait("shifted")
        assert not ahead.busy
        ahead.wait("a program that nobody began")
    assert compiled("shifted") == 1
    first = shifted({"by": np.ones(3, np.float32)}, np.zeros(3, np.float32), key)
    shifted({"by": jnp.ones(3, jnp.float32)}, first, key)
    assert compiled("shifted") == 1
    shifted({"by": np.ones(4, np.float32)}, np.zeros(4, np.float32), key)
    assert compiled("shifted") == 2


def test_what_is_no_program_is_left_alone():
    calls = []
    with Ahead() as ahead:
        ahead.compile("plain", calls.append, np.ones(3))
        ahead.wait("plain")
        assert not ahead.busy
    assert calls == []


def test_what_cannot_be_compiled_is_told_where_it_is_run():
    @jax.jit
    def broken(x):
        raise ValueError("no such program")

    with Ahead() as ahead:
        ahead.compile("broken", broken, np.ones(3))
        ahead.wait("broken")
        with pytest.raises(ValueError, match="no such program"):
            broken(np.ones(3))


def test_every_kind_of_batch_is_found_once(make_bcc, tmp_path):
    records = [make_bcc(i) for i in range(7)] + [make_bcc(i, twist=(0.1, 0.0, 0.0)) for i in range(10, 13)]
    dataset = write_dataset(tmp_path / "set", records)
    stream = ConfigurationStream(dataset, np.arange(10), batch_configurations=2, seed=0)
    found = [stream.batch(step) for step in first_of_every_kind(stream, 100)]
    assert sorted((batch.number, batch.twisted, len(batch.indices)) for batch in found) == [(2, False, 2), (2, True, 2)]
    assert list(first_of_every_kind(stream, 1)) == [0]
