"""A result computed by process 0 and broadcast to all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def broadcast_result(compute: Callable[[], Any]) -> Any:
    """Compute something in process 0 and broadcast it; all processes must call this in the same order.

    Args:
        compute: called in process 0 only; returns a JSON value. If it raises, process 0 ends, and the watchdogs of
            the others end them too.
    """
    if jax.process_count() == 1:
        return compute()
    text = json.dumps(compute()).encode() if jax.process_index() == 0 else b""
    length = int(multihost_utils.broadcast_one_to_all(np.array(len(text), np.int32)))
    padded = np.frombuffer(text.ljust(length), np.uint8)[:length]
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).astype(np.uint8).tobytes())
