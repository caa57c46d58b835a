"""Measure how well the signs of doubt rank the true errors of zero-shot energies (Spearman).

    python tests/benchmarks/reliability.py runs/a/energies-x.json --against runs/finetuned/energies-x.json
    python tests/benchmarks/reliability.py runs/a/energies-x.json

The true error of a configuration is its energy minus that of the same configuration in the other file (a model
fine-tuned on it, say), or minus its label where no other file is given. Shuffled errors give 0 +- 1 / sqrt(M - 1).
"""

import argparse
import json
from pathlib import Path

import numpy as np

from fnqs_eval.energies.evaluate import averages
from fnqs_eval.energies.journal import result_from_json
from fnqs_eval.energies.reliability import rank_correlations


def read(path: Path):
    """Results of a file, one a configuration."""
    return averages([result_from_json(row) for row in json.loads(path.read_text())["results"]])


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("energies", type=Path)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    results = read(options.energies)
    known = {row.identifier: row.label_energy_per_atom for row in results}
    if options.against:
        known = {row.identifier: row.energy_per_atom for row in read(options.against)}
    compared = [(row, known.get(row.identifier)) for row in results if np.isfinite(row.energy_per_atom)]
    compared = [(row, true) for row, true in compared if true is not None]
    chosen = [row for row, _ in compared]
    errors = np.array([row.energy_per_atom - true for row, true in compared])
    if len(chosen) < 3:
        raise SystemExit("three or more configurations with a known energy are needed")
    print(
        f"{len(chosen)} configurations, true errors {1e3 * errors.min():.1f} to {1e3 * errors.max():.1f} mHa per atom"
    )
    correlations = rank_correlations(chosen, errors.tolist())
    for name, value in ((name, value) for name, value in correlations.items() if np.isfinite(value)):
        print(f"{name:20s} Spearman {value:+.2f} ± {1 / np.sqrt(len(chosen) - 1):.2f}")


if __name__ == "__main__":
    main()
