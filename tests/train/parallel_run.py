"""One process of a small training in float64: FOLDER STEPS GROUPS new|resume PROCESS PROCESSES PORT.

The folder above has the parameters to begin with, params.npz. A file FOLDER/pause holds the step after which the run
waits until that file is gone.
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from fnqs.cli.command_line import run_command
from fnqs.configuration import make_configuration
from fnqs.model_config import ModelConfig
from fnqs.precision import configure
from fnqs_data.store.record import Record
from fnqs_data.store.store import open_dataset
from fnqs_data.store.write import write_dataset
from fnqs_train.config import CheckpointConfig, DataConfig, LogConfig, OptimizerConfig, RunConfig, SamplingConfig
from fnqs_train.distributed.broadcast import broadcast_result
from fnqs_train.distributed.processes import Place
from fnqs_train.distributed.session import distributed_session
from fnqs_train.loop import train
from fnqs_train.monitoring.metrics import MetricsRecord

MODEL = ModelConfig(features=8, vectors=4, amplitudes=4, radial_functions=4, proton_rounds=1)


def make_records() -> list[Record]:
    """Three BCC cells of N = 2."""
    records = []
    for i in range(3):
        edge = 2.6 + 0.1 * i
        configuration = make_configuration(edge * np.eye(3), edge * np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]))
        records.append(Record(configuration=configuration, identifier=str(i), phase="bcc"))
    return records


def make_config(steps: int) -> RunConfig:
    """Settings of the run; all walkers of a configuration are stale at its every second visit."""
    return RunConfig(
        name="run",
        steps=steps,
        data=DataConfig(recipe=""),
        model=MODEL,
        sampling=SamplingConfig(
            walkers_per_configuration=16,
            configurations_per_step=2,
            sweeps=2,
            equilibration_sweeps=20,
            stale_after=1,
            refresh_sweeps=5,
        ),
        optimizer=OptimizerConfig(learning_rate=0.01, damping=1e-2),
        checkpoint=CheckpointConfig(every_steps=20),
        log=LogConfig(wandb="disabled", every_steps=1),
    )


def main() -> int:
    """Train as one process."""
    folder, steps, resume = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume"
    place = Place(int(sys.argv[4]), int(sys.argv[5]), "localhost", int(sys.argv[6]))
    configure()
    jax.config.update("jax_disable_most_optimizations", True)
    compilations: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compilations.append(event) if "backend_compile" in event else None
    )
    counts: list[int] = []
    pause = folder / "pause"
    pause_after = int(pause.read_text()) if pause.exists() else None
    write = MetricsRecord.write

    def counting(self, step, values):
        counts.append(len(compilations))
        write(self, step, values)
        while step == pause_after and pause.exists():
            time.sleep(0.01)

    MetricsRecord.write = counting
    records = make_records()
    with distributed_session("parallel", place, seconds=60):
        device_count = jax.device_count()
        if not resume:
            broadcast_result(lambda: len(write_dataset(folder / "set", records)))
        dataset = open_dataset(folder / "set")
        params = unflatten_dict(dict(np.load(folder.parent / "params.npz")), sep="/")
        train(make_config(steps), folder / "run", dataset, params=params, resume=resume)
    if place.first:
        print(f"{device_count} devices, late compilations {counts[-1] - counts[min(4, len(counts) - 1)]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("parallel", main))
