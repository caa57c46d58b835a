"""The same run on one device and on two, in processes of their own, because devices are counted once in a process."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

STEPS = 50
PROGRAM = """
import json, sys
from pathlib import Path
import jax
import jax.numpy as jnp
from fnqs.configuration import make_configuration
from fnqs.model_config import ModelConfig
from fnqs.precision import configure
from fnqs_data.record import Record
from fnqs_data.store import write_dataset
from fnqs_train.chunks import MemoryConfig
from fnqs_train.config import CheckpointConfig, DataConfig, LogConfig, OptimizerConfig, RunConfig, SamplingConfig
from fnqs_train.loop import train
from fnqs_train.record import read_metrics

folder, steps, groups = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
configure()
jax.config.update("jax_disable_most_optimizations", True)
records = []
for i in range(3):
    edge = 2.6 + 0.1 * i
    protons = edge * jnp.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    records.append(Record(configuration=make_configuration(edge * jnp.eye(3), protons), identifier=str(i), phase="bcc"))
config = RunConfig(
    name="run", steps=steps, data=DataConfig(recipe=""),
    model=ModelConfig(features=8, vectors=4, amplitudes=4, radial_functions=4, proton_rounds=1),
    sampling=SamplingConfig(walkers_per_configuration=16, configurations_per_step=3, sweeps=2, equilibration_sweeps=20),
    optimizer=OptimizerConfig(learning_rate=0.01, damping=1e-2),
    checkpoint=CheckpointConfig(every_steps=1000), memory=MemoryConfig(jacobian_groups=groups),
    log=LogConfig(wandb="disabled", every_steps=1),
)
train(config, folder / "run", write_dataset(folder / "set", records))
rows = read_metrics(folder / "run")
print(json.dumps([jax.device_count(), [[row["energy_per_atom"], row["acceptance"]] for row in rows]]))
"""


def trajectory(folder, devices: int, groups: int = 1):
    """Energies and acceptances (STEPS, 2) of a run on so many devices of the processor."""
    folder.mkdir()
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    arguments = [sys.executable, "-c", PROGRAM, str(folder), str(STEPS), str(groups)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found, rows = json.loads(done.stdout.splitlines()[-1])
    assert found == devices
    return np.array(rows)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return trajectory(tmp_path_factory.mktemp("alone") / "one", 1)


@pytest.mark.parametrize(("devices", "groups"), [(2, 1), (2, 3), (1, 3)])
def test_devices_and_groups_leave_the_trajectory_as_it_is(tmp_path, alone, devices, groups):
    rows = trajectory(tmp_path / "run", devices, groups)
    assert rows.shape == (STEPS, 2)
    # Until rounding turns over the first acceptance the runs agree to rounding: float32 sums in another order.
    np.testing.assert_allclose(rows[:3], alone[:3], rtol=0, atol=1e-4)
    # One walker of 48 that takes another way changes a mean by a fraction of its own scatter.
    assert np.abs(rows[:, 0] - alone[:, 0]).max() < np.std(alone[:, 0])
