"""Compare settings of the optimiser over all phases and densities at once, not on one system.

    python tests/benchmarks/optimizer_choice.py FOLDER                                   all settings below
    python tests/benchmarks/optimizer_choice.py FOLDER base optimizer.damping=1e-3       some: "base" or key=value,...

From the quickstart's data set 800 configurations of N = 8 are drawn to train on. Every setting gets the same 200 steps
of 16 configurations with 16 walkers and the same seed; then 24 configurations of densities never trained on are
evaluated zero-shot, with equal seeds. Prints the mean of E/N with its error, the difference from the first setting, the
mean variance and the time; results are kept in FOLDER and what is there is not run again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from fnqs.precision import configure
from fnqs.wavefunction import WaveFunction
from fnqs_data.generate.build import cached_dataset
from fnqs_data.store.store import Dataset, open_dataset
from fnqs_data.store.write import write_dataset
from fnqs_eval.energies.energy import EvaluationSettings, evaluate_records
from fnqs_train.config import load_config
from fnqs_train.loop import train

CONFIGS = Path(__file__).parents[2] / "configs"

BASE = (
    "sampling.configurations_per_step=16",
    "sampling.walkers_per_configuration=16",
    "optimizer.learning_rate=0.05",
    "optimizer.decay_steps=250",
    "optimizer.damping=1e-2",
    "optimizer.momentum=0.9",
    "optimizer.max_norm=5.0",
    "checkpoint.every_steps=1000000",
    "log.wandb=disabled",
)

CHOICES = (
    "base",
    "optimizer.damping=1e-3",
    "optimizer.damping=1e-1",
    "optimizer.momentum=0.95",
    "optimizer.momentum=0",
    "optimizer.max_norm=1.0",
    "optimizer.learning_rate=0.15",
)

NUMBER, TRAINED, EVALUATED, STEPS = 8, 800, 24, 200

SETTINGS = EvaluationSettings(walkers=32, equilibration_sweeps=200, target_error=1e-9, max_measurements=32)


def main(folder: Path, choices: list[str]) -> None:
    """Run the settings that are not there yet and print all."""
    configure()
    dataset = open_or_draw(folder / "data")
    held_out = np.random.default_rng(0).choice(dataset.where(split="held-out-density"), EVALUATED, replace=False)
    records = [dataset[int(index)] for index in held_out]
    first = None
    for choice in choices or CHOICES:
        file = folder / f"{choice.replace('=', '-').replace(',', '+')}.json"
        if not file.exists():
            file.write_text(json.dumps(run(folder, choice, dataset, records)))
        result = json.loads(file.read_text())
        energies, errors = np.array(result["energies"]), np.array(result["errors"])
        first = first or (energies, errors)
        change = 1e3 * np.mean(energies - first[0])
        spread = 1e3 * np.sqrt(np.sum(errors**2 + first[1] ** 2)) / len(errors)
        print(
            f"{choice:52s} E/N {energies.mean():.5f} ± {np.sqrt(np.sum(errors**2)) / len(errors):.5f} Ha, "
            f"{change:+.2f} ± {spread:.2f} mHa, variance/N {np.mean(result['variances']):.4f} Ha², "
            f"{result['seconds']:.0f} s",
            flush=True,
        )


def open_or_draw(folder: Path) -> Dataset:
    """Open or make the data set: some configurations to train on and all that are held out by density."""
    if not folder.exists():
        whole = cached_dataset(CONFIGS / "datasets" / "quickstart.toml")
        trained = np.flatnonzero((whole.n_atoms == NUMBER) & np.isin(np.arange(len(whole)), whole.where(split="train")))
        held_out = whole.where(split="held-out-density")
        drawn = np.random.default_rng(1).choice(trained, TRAINED, replace=False)
        chosen = np.concatenate([np.sort(drawn), held_out[whole.n_atoms[held_out] == NUMBER]])
        write_dataset(folder, [whole[int(index)] for index in chosen])
    return open_dataset(folder)


def run(folder: Path, choice: str, dataset: Dataset, records: list) -> dict:
    """Train with one setting and evaluate; energies in Ha per atom."""
    changes = [] if choice == "base" else choice.split(",")
    name = choice.replace("=", "-").replace(",", "+")
    settings = [f"name={name}", f"steps={STEPS}", f"data.recipe={folder / 'data'}", *BASE, *changes]
    config = load_config(CONFIGS / "quickstart.toml", settings)
    began = time.monotonic()
    run_folder = folder / name
    run_folder.mkdir(parents=True, exist_ok=True)
    params = train(config, run_folder, dataset)
    seconds = time.monotonic() - began
    results = evaluate_records(WaveFunction(config.model), params, records, SETTINGS)
    return {
        "energies": [result.energy_per_atom for result in results],
        "errors": [result.error_per_atom for result in results],
        "variances": [result.variance_per_atom for result in results],
        "seconds": seconds,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
