"""Train the benchmark cases and print their energies beside the references.

    python tests/benchmarks/accuracy.py                      every case of configs/benchmarks
    python tests/benchmarks/accuracy.py bcc_n2 h4_open       some of them

Each case is trained by `fnqs-train configs/benchmarks/NAME.toml` into runs/NAME (what is there already is resumed or
used as it is), then sampled separately. A reference without periodic images is compared with the energy without
images (`image_correction`). Prints Ha per atom, variance and V-score, writes runs/accuracy.json.
"""

from __future__ import annotations

import json
import sys
import time
import tomllib
from pathlib import Path

import image_correction

from fnqs.cli.notation import with_error
from fnqs.precision import configure
from fnqs_data.generate.build import cached_dataset
from fnqs_eval import load_model
from fnqs_eval.energies.energy import EvaluationSettings, evaluate_records
from fnqs_train.commands import train_main
from fnqs_train.config import recipe_path

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs" / "benchmarks"
REFERENCES = HERE / "references.toml"

SETTINGS = EvaluationSettings(walkers=1024, equilibration_sweeps=1000, target_error=8e-5, max_measurements=1024, seed=1)

IMAGE_MEASUREMENTS = 200
"""Local energies of each of the walkers that the energy without images is averaged over."""


def main(names: list[str]) -> None:
    """Run the named cases."""
    configure()
    references = tomllib.loads(REFERENCES.read_text())
    rows = []
    for name in names or sorted(path.stem for path in CONFIGS.glob("*.toml")):
        began = time.monotonic()
        train_main([str(CONFIGS / f"{name}.toml"), "--resume"])
        trained = time.monotonic() - began
        rows += [row | {"training_seconds": trained} for row in evaluate(name, references.get(name, []))]
        Path("runs/accuracy.json").write_text(json.dumps(rows, indent=1))
    print(
        f"\n{'case':22} {'E/N (Ha)':>16} {'reference':>11} {'difference (mHa)':>17} {'var/N (Ha²)':>12} {'V-score':>9}"
    )
    for row in rows:
        reference = row.get("reference")
        difference = f"{1e3 * (row['energy'] - reference):+.2f} ± {1e3 * row['error']:.2f}" if reference else ""
        print(
            f"{row['case']:22} {with_error(row['energy'], row['error']):>16} {reference or '':>11} {difference:>17} "
            f"{row['variance_per_atom']:12.2e} {row['v_score']:9.1e}"
        )


def evaluate(name: str, references: list[dict]) -> list[dict]:
    """Energies of every configuration of a case, Ha per atom."""
    model = load_model(Path("runs") / name)
    wavefunction, params = model.wavefunction, model.params
    records = list(cached_dataset(recipe_path(model.config)))
    rows = []
    for place, result in enumerate(evaluate_records(wavefunction, params, records, SETTINGS)):
        known = references[place] if place < len(references) else {}
        row = {
            "case": result.identifier,
            "energy": result.energy_per_atom,
            "error": result.error_per_atom,
            "periodic": result.energy_per_atom,
            "variance_per_atom": result.variance_per_atom,
            "v_score": result.v_score,
        }
        if known:
            row["reference"] = known["energy"] / (result.number if known.get("total") else 1)
            row["source"] = known["source"]
        if not known.get("images", True):
            *_, alone = image_correction.measure(wavefunction, params, records[place], IMAGE_MEASUREMENTS)
            row |= {"energy": alone.mean / result.number, "error": alone.error / result.number}
        rows.append(row)
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
