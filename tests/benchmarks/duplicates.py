"""How long the search for near-duplicates takes, how many candidates it aligns, and whether it finds what was hidden.

Three synthetic sets of 20,000 records, a tenth of them held out: N = 8 in cells of all densities and shapes, N = 16
in one cubic cell (the hardest lattice: 48 alignments, and no candidate is excluded by its cell), N = 96 in cubic
cells of a hundred densities. In each, 100 training records are hidden again among the held-out ones: turned,
mirrored, shifted, reordered, in another cell and displaced by 0 to 0.95 of the tolerance.

    python tests/benchmarks/duplicates.py FOLDER [RECORDS [TOLERANCE]]

Or, for a set that exists: python tests/benchmarks/duplicates.py --set DATASET [TOLERANCE]
"""

from __future__ import annotations

import shutil
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np

from fnqs.configuration import Configuration
from fnqs_data.inspect.duplicates import find_duplicates
from fnqs_data.store.record import Record
from fnqs_data.store.store import Dataset, open_dataset
from fnqs_data.store.write import write_dataset

HIDDEN = 100
KINDS = ("all-cells-n8", "one-cell-n16", "cubic-n96")


def structure(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw a cell and a hot crystal in it, bohr."""
    number = int(kind.rpartition("n")[2])
    shape = np.eye(3)
    if kind.startswith("all"):
        shape += rng.normal(scale=0.03, size=(3, 3))
    r_s = {"one": 1.5, "cub": 1 + 0.017 * rng.integers(100)}.get(kind[:3], rng.uniform(1.0, 2.7))
    cell = shape * (4 * np.pi / 3 * number / abs(np.linalg.det(shape))) ** (1 / 3) * r_s
    side = int(np.ceil(number ** (1 / 3)))
    sites = np.array(list(product(range(side), repeat=3)))
    sites = sites[np.sort(rng.choice(len(sites), number, replace=False))]
    return cell, (sites + rng.normal(scale=0.15, size=sites.shape)) / side @ cell


def disguised(rng: np.random.Generator, cell: np.ndarray, protons: np.ndarray, rms: float):
    """Give the same structure another cell, orientation, hand, origin and order, and displace it by `rms`."""
    noise = rng.normal(size=protons.shape)
    noise -= noise.mean(axis=0)
    noise *= rms / np.sqrt(np.mean(np.sum(noise**2, axis=1)))
    basis = np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]])[rng.permutation(3)]
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return basis @ cell @ rotation, rng.permutation(protons + noise + rng.normal(size=3)) @ rotation


def make_set(folder: Path, kind: str, count: int, tolerance: float) -> Dataset:
    """Write a synthetic set with hidden copies."""
    rng = np.random.default_rng(1)
    drawn = [structure(rng, kind) for _ in range(count - HIDDEN)]
    records = [
        Record(
            configuration=Configuration(*arrays, twist=np.zeros(3)),
            identifier=f"r-{i}",
            split="held-out-r_s" if i % 10 == 9 else "train",
        )
        for i, arrays in enumerate(drawn)
    ]
    training = [i for i in range(len(drawn)) if i % 10 != 9]
    for k, i in enumerate(rng.choice(training, HIDDEN, replace=False)):
        arrays = disguised(rng, *drawn[i], rms=tolerance * 0.95 * k / (HIDDEN - 1))
        records.append(
            Record(
                configuration=Configuration(*arrays, twist=np.zeros(3)),
                identifier=f"copy-{i}",
                split="held-out-r_s",
            )
        )
    return write_dataset(folder, records)


def measure(dataset: Dataset, tolerance: float) -> None:
    """Print candidates, what was found and the time."""
    candidates: dict[int, int] = {}
    began = time.perf_counter()
    found = find_duplicates(dataset, tolerance, candidates.__setitem__)
    seconds = time.perf_counter() - began
    names = dataset.identifiers
    hidden = sum(f"copy-{names[d.first][2:]}" == names[d.second] for d in found)
    print(
        f"{dataset.folder.name}: {len(dataset)} records, {seconds:.1f} s, candidates {candidates}, "
        f"{len(found)} pairs found, {hidden} of them hidden copies",
        flush=True,
    )


def main(folder: Path, count: int, tolerance: float) -> None:
    """Make, measure and remove each synthetic set."""
    for kind in KINDS:
        try:
            measure(make_set(folder / kind, kind, count, tolerance), tolerance)
        finally:
            shutil.rmtree(folder / kind, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] == "--set":
        measure(open_dataset(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.02)
    else:
        numbers = sys.argv[2:]
        main(Path(sys.argv[1]), int(numbers[0]) if numbers else 20_000, float(numbers[1]) if len(numbers) > 1 else 0.02)
