"""Does it pay to visit configurations of large variance more often? Trained with and without, and evaluated alike.

    python tests/benchmarks/schedule.py FOLDER [steps=250] [seeds=2]

Sixty-four disordered configurations of N = 4, r_s = 1.0 to 2.4, whose variances differ by more than tenfold.
After equal numbers of steps every configuration is sampled separately with the parameters of the end.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from fnqs.precision import configure
from fnqs.wavefunction import WaveFunction
from fnqs_eval.energies.energy import EvaluationSettings, evaluate_records
from fnqs_train.commands import load_dataset
from fnqs_train.config import load_config
from fnqs_train.loop import train

RECIPE = """name = "schedule"
[[family]]
phase = "bcc"
count = 64
number = [4]
density = [1.0, 2.4]
displacement = [0.0, 0.2]
"""
CONFIG = """name = "schedule"
data.recipe = "schedule-set.toml"
steps = 250
log.wandb = "disabled"
checkpoint.every_steps = 100000
model = { features = 16, vectors = 4, amplitudes = 4, radial_functions = 6, proton_rounds = 1 }
sampling = { walkers_per_configuration = 32, configurations_per_step = 4, equilibration_sweeps = 60 }
"""


def main(folder: Path, steps: int, seeds: int) -> int:
    """Train and evaluate; prints one line for each run."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["FNQS_CACHE"] = str(folder / "cache")
    (folder / "schedule-set.toml").write_text(RECIPE)
    (folder / "schedule.toml").write_text(CONFIG)
    configure()
    settings = EvaluationSettings(walkers=64, equilibration_sweeps=100, target_error=2e-3, max_measurements=32)
    found: dict[str, list[np.ndarray]] = {"uniform": [], "variance": []}
    for seed in range(seeds):
        for schedule, results in found.items():
            config = load_config(folder / "schedule.toml", [f"steps={steps}", f"seed={seed}"])
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, schedule=schedule))
            run = folder / f"{schedule}-{seed}"
            shutil.rmtree(run, ignore_errors=True)
            dataset = load_dataset(config)
            began = time.monotonic()
            params = train(config, run, dataset)
            records = [dataset[i] for i in range(len(dataset))]
            energies = evaluate_records(WaveFunction(config.model), params, records, settings)
            numbers = np.array([(e.energy_per_atom, e.error_per_atom, e.variance_per_atom) for e in energies])
            results.append(numbers)
            worst = np.argsort(numbers[:, 2])[-16:]
            print(
                f"seed {seed} {schedule:8s} mean E/N {numbers[:, 0].mean():.5f} +- "
                f"{np.sqrt(np.sum(numbers[:, 1] ** 2)) / len(numbers):.5f} Ha, var/N mean {numbers[:, 2].mean():.4f} "
                f"median {np.median(numbers[:, 2]):.4f}, of the worst quarter {numbers[worst, 2].mean():.4f} Ha^2, "
                f"{time.monotonic() - began:.0f} s",
                flush=True,
            )
    differences = np.array([v[:, 0] - u[:, 0] for u, v in zip(found["uniform"], found["variance"], strict=True)])
    errors = np.array([np.hypot(u[:, 1], v[:, 1]) for u, v in zip(found["uniform"], found["variance"], strict=True)])
    mean, error = differences.mean(), np.sqrt(np.sum(errors**2)) / errors.size
    print(f"variance schedule minus uniform: {1e3 * mean:.2f} +- {1e3 * error:.2f} mHa per atom (sampling error only)")
    print(f"of the seeds: {', '.join(f'{1e3 * row.mean():.2f}' for row in differences)}")
    return 0


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:]]
    sys.exit(main(Path(sys.argv[1]), *(numbers + [250, 2][len(numbers) :])))
