"""One cell learned alone and as one of five that share a wave function: its energy against steps, in one plot.

    python tests/benchmarks/shared_and_alone.py [key=value ...]

Trains configs/benchmarks/bcc_five.toml and bcc_a36.toml with these changes (what is there is resumed or used as it
is), samples the cell of a = 3.6 bohr separately at some of the checkpoints that were kept, and writes
runs/shared_and_alone.json and .png.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from accuracy import CONFIGS, REFERENCES, SETTINGS

from fnqs.cli.notation import with_error
from fnqs.cli.settings import read_toml
from fnqs.precision import configure
from fnqs_data.generate.build import cached_dataset
from fnqs_eval import load_model
from fnqs_eval.energies.energy import evaluate_records
from fnqs_train.checkpointing.steps import FOLDER_NAME
from fnqs_train.commands import train_main
from fnqs_train.config import recipe_path

RUNS = {"bcc_five": ("one of five that share", 1), "bcc_a36": ("alone", 0)}
"""Names of the runs, their labels, and the place of the cell among their configurations."""

FERMINET = {
    "FermiNet alone": {2000: -0.531751, 10000: -0.533391, 20000: -0.533692, 50000: -0.533842},
    "FermiNet, one of five": {2000: -0.533115, 10000: -0.533574, 20000: -0.533654},
}
"""Published energies (Ha per atom) by steps, of 2048 walkers: energies.csv in mdsunivie/deeperwin."""

STEPS = (100, 200, 400, 600, 1000, 2000, 4000)
"""Those of the checkpoints, where they were kept, that are sampled."""

QUICK = dataclasses.replace(SETTINGS, walkers=256, equilibration_sweeps=300, target_error=3e-4, max_measurements=256)


def main(changes: list[str]) -> None:
    """Train, sample, draw."""
    configure()
    rows = []
    for name, (label, place) in RUNS.items():
        train_main([str(CONFIGS / f"{name}.toml"), "--resume", *(["--set", *changes] if changes else [])])
        folder = Path("runs") / name
        for step in (step for step in STEPS if (folder / FOLDER_NAME / str(step)).is_dir()):
            model = load_model(folder / FOLDER_NAME / str(step))
            record = list(cached_dataset(recipe_path(model.config)))[place]
            (result,) = evaluate_records(model.wavefunction, model.params, [record], QUICK)
            row = {"run": name, "step": step, "energy": result.energy_per_atom, "error": result.error_per_atom}
            row |= {"variance_per_atom": result.variance_per_atom, "v_score": result.v_score, "label": label}
            rows.append(row)
            print(f"{label:24} step {step:5}  {with_error(row['energy'], row['error'])} Ha/atom", flush=True)
    Path("runs/shared_and_alone.json").write_text(json.dumps(rows, indent=1))
    draw(rows, read_toml(REFERENCES)["bcc_a36"][0]["energy"])


def draw(rows: list[dict], reference: float) -> None:
    """Energy of the cell against steps of both runs, above the reference (mHa per atom)."""
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, (label, _) in RUNS.items():
        own = [row for row in rows if row["run"] == name]
        axes.errorbar(
            [row["step"] for row in own],
            [1e3 * (row["energy"] - reference) for row in own],
            [1e3 * row["error"] for row in own],
            marker="o",
            capsize=2,
            label=label,
        )
    for label, points in FERMINET.items():
        steps, energies = zip(*points.items(), strict=True)
        axes.plot(steps, [1e3 * (energy - reference) for energy in energies], "--", marker="s", ms=4, label=label)
    axes.axhline(0, color="0.5", lw=0.8)
    axes.set(xscale="log", xlabel="steps on the cell", ylabel="E/N above FermiNet's last (mHa)")
    axes.set_title("bcc, N = 16, a = 3.6 bohr, Γ", loc="left")
    axes.legend(frameon=False)
    figure.savefig("runs/shared_and_alone.png", dpi=150)


if __name__ == "__main__":
    main(sys.argv[1:])
