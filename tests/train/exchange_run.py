"""One process of an exchange of rows: PROCESS PROCESSES PORT. Prints how many rows of how many arrays were checked."""

import sys

import jax
import numpy as np

from fnqs.cli.command_line import run_command
from fnqs.precision import configure
from fnqs_train.distributed.exchange import gather_rows
from fnqs_train.distributed.processes import Place
from fnqs_train.distributed.session import distributed_session
from fnqs_train.distributed.sharding import make_mesh


def main() -> int:
    """Exchange arrays of every type a system may have, and compare bit for bit."""
    configure()
    process, processes, port = map(int, sys.argv[1:])
    rng = np.random.default_rng(0)
    whole = {
        "float64": rng.normal(size=(6, 3, 2)),
        "complex128": rng.normal(size=(6, 2)) + 1j * rng.normal(size=(6, 2)),
        "int64": np.arange(6) + 2**60,
        "int32": np.arange(6, dtype=np.int32)[:, None],
        "bool": np.arange(6) % 2 == 0,
        "empty": np.zeros((6, 0, 3)),
        "float32": rng.normal(size=(6, 5)).astype(np.float32),
    }
    whole["float64"][0, 0] = np.nan, -0.0
    checked = 0
    with distributed_session("exchange", Place(process, processes, "localhost", port), seconds=60):
        mesh = make_mesh(2 * processes)
        for count in (6, 5, 1):
            rows = -(-count // processes)
            here = np.arange(process * rows, (process + 1) * rows) % count
            share = {name: values[here] for name, values in whole.items()}
            found = gather_rows(mesh, share, count)
            for name, values in whole.items():
                assert len(found[name].devices()) == jax.device_count()
                assert found[name].dtype == values.dtype
                assert np.asarray(found[name]).tobytes() == values[:count].tobytes(), (name, count)
                checked += count
    print(f"checked {checked} rows of {len(whole)} arrays", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("exchange", main))
