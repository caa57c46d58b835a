"""Train the three antisymmetric parts at equal cost on atomic, molecular and stretched cells, and compare them.

    python tests/benchmarks/antisymmetric.py [STEPS] [WALKERS]

The same network, optimiser, steps and walkers for `model.antisymmetric` "pairing", "slater" and "plane_waves", one
model for each part and cell, in runs/antisymmetric (what is there already is resumed or used as it is). Each is
sampled separately afterwards. Prints a table in Ha per atom and draws runs/antisymmetric/antisymmetric.png. 35 minutes
on one processor core.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fnqs.cli.notation import with_error
from fnqs.precision import configure
from fnqs.wavefunction import WaveFunction
from fnqs_data.generate.build import cached_dataset
from fnqs_eval.energies.energy import EvaluationSettings, evaluate_records
from fnqs_eval.plots import COLOURS
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint
from fnqs_train.commands import train_main
from fnqs_train.config import load_config, recipe_path
from fnqs_train.loading import load_params

FOLDER = Path("runs") / "antisymmetric"

SYSTEMS = {
    "atomic": ("sc, r_s = 1.6", 'phase = "sc"\nnumber = [8]\nr_s = 1.6\nsupercell = [2, 2, 2]'),
    "molecular": ("Pa-3, r_s = 1.6, bond 1.4", 'phase = "pa3"\nnumber = [8]\nr_s = 1.6\nbond = 1.4'),
    "stretched": ("sc, r_s = 2.2", 'phase = "sc"\nnumber = [8]\nr_s = 2.2\nsupercell = [2, 2, 2]'),
    "chain": ("open H4, R = 3.0", 'phase = "chain"\nnumber = [4]\nspacing = 3.0\nvacuum = 12.0\nopen = true'),
}
"""Cells of eight atoms, and a chain in a box, at Gamma: title and family of the data set recipe."""

PARTS = ("pairing", "slater", "plane_waves")

CONFIG = """name = "antisymmetric"
steps = {steps}
data.recipe = "{system}.toml"
model.antisymmetric = "{part}"
sampling = {{ walkers_per_configuration = {walkers}, configurations_per_step = 1, equilibration_sweeps = 300 }}
optimizer = {{ learning_rate = 0.05, decay_steps = 200, damping = 1e-2, max_norm = 2.0 }}
log.wandb = "disabled"
"""

SETTINGS = EvaluationSettings(walkers=256, equilibration_sweeps=500, target_error=1.5e-4, max_measurements=512, seed=1)


def main(steps: int = 250, walkers: int = 160) -> None:
    """Train, sample, print and draw all cases."""
    configure()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = []
    for system, (_, family) in SYSTEMS.items():
        (FOLDER / f"{system}.toml").write_text(f'name = "antisymmetric_{system}"\n[[family]]\n{family}\n')
        for part in PARTS:
            name = f"{system}-{part}"
            path = FOLDER / f"{name}.toml"
            path.write_text(CONFIG.format(steps=steps, system=system, part=part, walkers=walkers))
            train_main([str(path), "--output", str(FOLDER / name), "--resume"])
            rows.append({"system": system, "part": part} | evaluate(FOLDER / name))
            (FOLDER / "results.json").write_text(json.dumps(rows, indent=1))
    print_table(rows, steps, walkers)
    draw(rows, steps, walkers)


def evaluate(folder: Path) -> dict:
    """Sampled energy of a run, with its cost; kept beside the run."""
    checkpoint, kept = resolve_checkpoint(folder), folder / "sampled.json"
    if kept.exists() and (row := json.loads(kept.read_text()))["step"] == checkpoint.step:
        return row
    config = load_config(folder)
    params = load_params(checkpoint, config)
    (result,) = evaluate_records(
        WaveFunction(config.model), params, list(cached_dataset(recipe_path(config))), SETTINGS
    )
    row = {
        "step": checkpoint.step,
        "energy": result.energy_per_atom,
        "error": result.error_per_atom,
        "variance_per_atom": result.variance_per_atom,
        "v_score": result.v_score,
        "flags": list(result.flags),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "seconds_per_step": float(np.median([row["seconds_per_step"] for row in curve(folder)[1:]])),
    }
    kept.write_text(json.dumps(row))
    return row


def curve(folder: Path) -> list[dict]:
    """Lines of metrics.jsonl of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def print_table(rows: list[dict], steps: int, walkers: int) -> None:
    """Print one line for every cell and part; the difference is that to the pairing in the same cell."""
    print(f"\n{steps} steps of {walkers} walkers, Gamma")
    print(
        f"{'cell':11} {'part':12} {'E/N (Ha)':>14} {'difference (mHa)':>17} {'var/N (Ha²)':>12} {'V-score':>9} "
        f"{'s/step':>7} {'parameters':>11}"
    )
    first = {row["system"]: row for row in rows if row["part"] == PARTS[0]}
    for row in rows:
        reference = first[row["system"]]
        difference = ""
        if row is not reference:
            error = np.hypot(row["error"], reference["error"])
            difference = f"{1e3 * (row['energy'] - reference['energy']):+.2f} ± {1e3 * error:.2f}"
        print(
            f"{row['system']:11} {row['part']:12} {with_error(row['energy'], row['error']):>14} {difference:>17} "
            f"{row['variance_per_atom']:12.2e} {row['v_score']:9.1e} {row['seconds_per_step']:7.2f} "
            f"{row['parameters']:11} {'; '.join(row['flags'])}"
        )


def draw(rows: list[dict], steps: int, walkers: int) -> None:
    """Draw energies above the lowest against the step, one panel for each cell; the last points are sampled ones."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for place, (axis, (system, (title, _))) in enumerate(
        zip(figure.subplots(1, len(SYSTEMS), sharey=True), SYSTEMS.items(), strict=True)
    ):
        own = [row for row in rows if row["system"] == system]
        lowest = min(row["energy"] for row in own)
        for row, colour in zip(own, COLOURS, strict=False):
            lines = curve(FOLDER / f"{system}-{row['part']}")
            heights = [1e3 * (line["energy_per_atom"] - lowest) for line in lines]
            axis.plot([line["step"] for line in lines], heights, color=colour, label=row["part"].replace("_", " "))
            final = 1e3 * (row["energy"] - lowest)
            axis.errorbar(1.04 * steps, final, 1e3 * row["error"], color=colour, marker="o", markersize=4, capsize=2)
        axis.set_yscale("symlog", linthresh=2, linscale=0.5)
        axis.set_yticks([0, 2, 5, 10, 20, 50, 100], ["0", "2", "5", "10", "20", "50", "100"])
        axis.set_ylim(-2, 150)
        axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        axis.grid(axis="y", color="0.92")
        axis.set_title(f"{system}: {title}", fontsize=10)
        axis.set_xlabel("step")
        axis.spines[["top", "right"]].set_visible(False)
        if place == 0:
            axis.set_ylabel("E/N above the lowest (mHa)")
            axis.legend(frameon=False)
    figure.suptitle(f"Gamma, {walkers} walkers; points: sampled after the training", fontsize=10)
    FigureCanvasAgg(figure).print_png(FOLDER / "antisymmetric.png")
    print(f"written: {FOLDER / 'antisymmetric.png'}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
