"""The same run on one and two devices in one and two processes, which are counted once in a process: so in others."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from free_port import free_port

from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_train.checkpointing.orbax_trees import restore_plain
from fnqs_train.checkpointing.steps import CheckpointPath, find_damage
from fnqs_train.distributed.sharded_arrays import read_arrays
from fnqs_train.distributed.watchdog import LOST
from fnqs_train.monitoring.metrics import read_metrics

pytestmark = pytest.mark.slow

STEPS = 50
PROGRAM = Path(__file__).with_name("parallel_run.py")
INTERRUPTED = 130


class Processes:
    """The processes of one run, each with its output in a file."""

    def __init__(self, folder: Path, processes: int, devices: int, *, steps=STEPS, resume=False, pause=None):
        folder.mkdir(parents=True, exist_ok=True)
        if pause is not None:
            (folder / "pause").write_text(str(pause))
        environment = os.environ | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
            "FNQS_CACHE": str(folder.parent / "cache"),  # shared: what has been compiled once is not compiled again
        }
        port = free_port()
        self.folder = folder
        self.outputs = [folder / f"output-{i}" for i in range(processes)]
        self.running = []
        for i, output in enumerate(self.outputs):
            arguments = [folder, steps, "resume" if resume else "new", i, processes, port]
            with output.open("wb") as stream:
                command = [sys.executable, PROGRAM, *map(str, arguments)]
                self.running.append(subprocess.Popen(command, env=environment, stdout=stream, stderr=stream))

    def end(self) -> list[int]:
        """Exit codes, once all have ended; those that do not end in time are killed, and the test fails."""
        try:
            return [process.wait(timeout=300) for process in self.running]
        finally:
            for process in self.running:
                process.kill()

    def said(self, process: int = 0) -> str:
        return self.outputs[process].read_text()

    def wait_for_step(self, step: int) -> None:
        """Return when the record has a step; let the run pause there, or it may be at its end by then."""
        end = time.monotonic() + 200
        while True:
            assert all(process.poll() is None for process in self.running), self.said()[-3000:]
            assert time.monotonic() < end
            record = self.folder / "run" / "metrics.jsonl"
            if record.exists() and any(row["step"] >= step for row in read_metrics(record)):
                return
            time.sleep(0.05)

    def go_on(self) -> None:
        (self.folder / "pause").unlink()


def run(folder: Path, processes: int, devices: int, **options) -> Path:
    started = Processes(folder, processes, devices, **options)
    assert started.end() == [0] * processes, started.said()[-3000:]
    # Arrays that come in two layouts would compile every program twice. A resumed run compiles one program late: that
    # which equilibrates for the first comparison with the untrained parameters, at step 40 here.
    late = "[01]" if options.get("resume") else "0"
    assert re.search(rf"{processes * devices} devices, late compilations {late}\n", started.said())
    return folder / "run"


def trajectory(run: Path) -> np.ndarray:
    """Energies and acceptances (steps, 2)."""
    return np.array([[row["energy_per_atom"], row["acceptance"]] for row in read_metrics(run)])


def state(run: Path, step: int = STEPS) -> dict[str, np.ndarray]:
    """Parameters, direction and walkers of a checkpoint."""
    folder = run / "checkpoints" / str(step)
    walkers = read_arrays(folder / "walkers")["n002"]
    (direction,) = (leaf for leaf in leaves(restore_plain(folder / "optimizer")) if leaf.ndim == 1)
    params = np.concatenate([leaf.ravel() for leaf in leaves(restore_plain(folder / "params"))])
    return {"params": params, "direction": direction} | walkers


def leaves(tree) -> list[np.ndarray]:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    return [np.asarray(tree)]


def assert_same_to_rounding(one: Path, other: Path) -> None:
    """Compare two runs whose float64 sums were taken in another order.

    In float32, rounding turns over the acceptance of a move sooner or later (a run decides thousands of them, each with
    a chance of some 1e-7), and from there the runs are different samples. In float64 that chance is 1e-9 of it: every
    decision is the same, and rounding has nothing to grow by but the solves, which amplify it by at most 1/damping.
    Found: 2e-15 Ha in all energies, 1e-14 in parameters, 2e-13 in the direction. Any missing or doubled term of a
    device or a process is larger than what is allowed here by many orders of magnitude.
    """
    ours, theirs = trajectory(one), trajectory(other)
    assert ours.shape == theirs.shape == (STEPS, 2)
    np.testing.assert_allclose(ours[:, 1], theirs[:, 1], rtol=0, atol=1e-7)  # the mean of equal counts, in float32
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], rtol=0, atol=1e-12)
    for (name, left), right in zip(state(one).items(), state(other).values(), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-10, err_msg=name)


@pytest.fixture(scope="module")
def place(tmp_path_factory, small_model, make_bcc):
    """A folder with the parameters that all runs begin with, drawn here once rather than in every process."""
    folder = tmp_path_factory.mktemp("parallel")
    system = make_system(make_bcc(0).configuration, small_model)
    params = jax.jit(WaveFunction(small_model).init)(jax.random.key(0), system)
    leaves = flatten_dict(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params), sep="/")
    np.savez(folder / "params.npz", **leaves)
    return folder


@pytest.fixture(scope="module")
def one_by_one(place):
    return run(place / "1x1", 1, 1)


@pytest.fixture(scope="module")
def one_by_two(place):
    return run(place / "1x2", 1, 2)


@pytest.fixture(scope="module")
def two_by_one(place):
    return run(place / "2x1", 2, 1)


def test_two_devices(one_by_one, one_by_two):
    assert_same_to_rounding(one_by_one, one_by_two)


def test_two_processes(one_by_one, one_by_two, two_by_one):
    assert_same_to_rounding(one_by_one, two_by_one)
    assert_same_to_rounding(one_by_two, two_by_one)


def test_two_processes_with_two_devices(place, one_by_one):
    assert_same_to_rounding(one_by_one, run(place / "2x2", 2, 2))


def test_each_process_saves_its_share(two_by_one, one_by_two):
    folder = two_by_one / "checkpoints" / str(STEPS)
    shares = [np.load(path) for path in sorted((folder / "walkers" / "n002").glob("positions.axis-1.share-*-of-2.npy"))]
    assert [share.shape for share in shares] == [(3, 8, 2, 3)] * 2
    assert find_damage(CheckpointPath(two_by_one, STEPS)) == []
    assert not list((two_by_one / "checkpoints").glob("*.part"))
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), state(one_by_two)["positions"])
    assert read_arrays(folder / "walkers", 1, 4)["n002"]["positions"].shape == (3, 4, 2, 3)


SUMS = """
import sys
from functools import partial
import jax, numpy as np
from jax.sharding import NamedSharding
from fnqs.cli.command_line import run_command
from fnqs_train.distributed.processes import Place
from fnqs_train.distributed.sharding import SHARDED, REPLICATED, make_mesh
from fnqs_train.distributed.session import distributed_session

def main():
    with distributed_session("sums", Place(int(sys.argv[1]), 2, "localhost", int(sys.argv[2])), seconds=60):
        mesh = make_mesh(2)
        add = partial(jax.shard_map, mesh=mesh, in_specs=SHARDED, out_specs=REPLICATED, check_vma=False)
        total = jax.jit(add(lambda x: jax.lax.psum(x, "walkers")))
        share = jax.make_array_from_process_local_data(NamedSharding(mesh, SHARDED), np.ones((1, 1)))
        while True:
            print(float(total(share)[0, 0]), flush=True)

sys.exit(run_command("sums", main))
"""


@pytest.mark.parametrize("victim", [0, 1])
def test_the_survivor_of_a_collective_operation_ends(tmp_path, victim):
    """Whichever dies: process 0, at which JAX's own service ends with it, or another."""
    port = free_port()
    outputs = [tmp_path / f"output-{i}" for i in range(2)]
    running = []
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    for i, output in enumerate(outputs):
        with output.open("wb") as stream:
            command = [sys.executable, "-c", SUMS, str(i), str(port)]
            running.append(subprocess.Popen(command, env=environment, stdout=stream, stderr=stream))
    end = time.monotonic() + 100
    while not all("2.0" in output.read_text() for output in outputs):
        assert all(process.poll() is None for process in running), outputs[0].read_text()[-2000:]
        assert time.monotonic() < end
        time.sleep(0.05)
    running[victim].kill()
    killed = time.monotonic()
    assert running[1 - victim].wait(60) == LOST
    assert time.monotonic() - killed < 10
    last = outputs[1 - victim].read_text().strip().splitlines()[-1]
    assert last == (
        f"sums: process {victim} of 2 was lost (its connection was closed); "
        f"go on from the last checkpoint with --resume"
    )
    running[victim].wait()


def test_killed_stopped_and_finished_in_other_processes_the_numbers_stay_the_same(place, one_by_one):
    """Two processes, of which one is killed; two more, of which one gets a signal; one with two devices to the end."""
    folder = place / "lost"
    both = Processes(folder, 2, 1, pause=22)
    both.wait_for_step(22)
    both.running[1].kill()
    both.go_on()
    assert both.end() == [LOST, -signal.SIGKILL]
    assert "process 1 of 2 was lost" in both.said().strip().splitlines()[-1]
    both = Processes(folder, 2, 1, resume=True, pause=26)
    both.wait_for_step(26)
    both.running[1].send_signal(signal.SIGTERM)
    both.go_on()
    assert both.end() == [INTERRUPTED] * 2
    (stopped,) = re.findall(r"stopped at step (\d+) as asked", both.said())
    assert max(row["step"] for row in read_metrics(folder / "run")) == int(stopped)
    assert find_damage(CheckpointPath(folder / "run", int(stopped))) == []
    run(folder, 1, 2, resume=True)
    assert_same_to_rounding(one_by_one, folder / "run")
