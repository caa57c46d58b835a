"""How far an energy can be trusted: by its variance, its sampling, and the distance to the training set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.geometry import minkowski_reduce
from scipy.spatial import KDTree
from scipy.stats import spearmanr

from fnqs_data.store.record import Record
from fnqs_data.store.store import Dataset
from fnqs_eval.energies.table import EnergyResult

SHELL = 8
"""Neighbours of a proton whose distances describe its surroundings."""

MOST_COMPARED = 2000
"""Records of the training set, evenly chosen, that a configuration is compared with."""

POOR_VARIANCE, FAIR_VARIANCE = 0.1, 0.03
"""Variance of the local energy over N (Ha^2) above which an energy is called poor, or fair."""

FAR, OUTSIDE = 3.0, 6.0
"""Distances from the training set above which an energy is called fair, or poor."""

FEW_SAMPLES = 64
"""Effective samples below which an error bar says little."""


@dataclass(frozen=True)
class TrainingDistribution:
    """Descriptors of a training set.

    Attributes:
        tree: of its scaled descriptors.
        scale: (D,) what each descriptor is divided by.
        usual: median distance between a member and its nearest other one.
        largest: most protons in a member.
    """

    tree: KDTree
    scale: np.ndarray
    usual: float
    largest: int

    def distance(self, record: Record) -> float:
        """Distance of a configuration to the nearest member, 1 being usual among the members themselves."""
        return float(self.tree.query(descriptor(record) / self.scale)[0]) / self.usual


def training_distribution(dataset: Dataset, split: str) -> TrainingDistribution | None:
    """Describe the records of a split, or None where it has fewer than three different ones."""
    chosen = dataset.where(split=split)
    places = np.unique(np.linspace(0, len(chosen) - 1, min(MOST_COMPARED, len(chosen))).round().astype(int))
    if len(places) < 3:
        return None
    described = np.array([descriptor(record) for record in dataset.read(chosen[places])])
    scale = np.maximum(described.std(axis=0), 1e-3)
    tree = KDTree(described / scale)
    nearest = np.asarray(tree.query(described / scale, k=2)[0])[:, 1]
    usual = float(np.median(nearest))
    largest = int(dataset.n_atoms[chosen].max())
    return TrainingDistribution(tree, scale, usual, largest) if usual > 0 else None


def descriptor(record: Record) -> np.ndarray:
    """Log r_s, and mean and spread over the protons of the distances (in r_s) of their nearest neighbours, images too.

    Returns:
        (1 + 2 SHELL,), the same for every equivalent choice of cell, origin and orientation.
    """
    cell = np.asarray(minkowski_reduce(np.asarray(record.configuration.cell, np.float64))[0])
    protons = np.asarray(record.configuration.protons, np.float64)
    radius = record.wigner_seitz_radius
    fractions = np.mod(protons @ np.linalg.inv(cell), 1.0)
    # Heights of the reduced cell say how many images a shell of SHELL neighbours can reach, generously.
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.ceil(4.0 * radius / heights).astype(int)
    axes = [np.arange(-n, n + 1) for n in reach]
    shifts = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    images = ((fractions[None] + shifts[:, None]).reshape(-1, 3)) @ cell
    distances = np.asarray(KDTree(images).query(fractions @ cell, k=SHELL + 1)[0])[:, 1:] / radius
    return np.concatenate([[4 * math.log(radius)], distances.mean(axis=0), distances.std(axis=0)])


def judge(result: EnergyResult) -> str:
    """Call an energy "good", "fair" or "poor"."""
    samples = math.inf if result.effective_samples is None else result.effective_samples
    distance = 0.0 if result.distance is None else result.distance
    if not math.isfinite(result.energy_per_atom) or result.variance_per_atom > POOR_VARIANCE or distance > OUTSIDE:
        return "poor"
    if result.variance_per_atom > FAIR_VARIANCE or distance > FAR or samples < FEW_SAMPLES:
        return "fair"
    return "good"


def rank_correlations(results: Sequence[EnergyResult], errors: Sequence[float]) -> dict[str, float]:
    """Measure how well each sign of doubt ranks the true errors (Spearman; 1 is a perfect ranking, 0 none).

    Args:
        results: evaluated configurations.
        errors: their true errors, of any unit; only their order counts.

    Returns:
        correlation by name, NaN where a sign is missing or the same for all.
    """
    signs = {
        "variance_per_atom": [r.variance_per_atom for r in results],
        "distance": [math.nan if r.distance is None else r.distance for r in results],
        "effective_samples": [-math.nan if r.effective_samples is None else -r.effective_samples for r in results],
        "reliability": [float(("good", "fair", "poor").index(judge(r))) for r in results],
    }
    return {name: _spearman(np.array(values), np.abs(np.asarray(errors))) for name, values in signs.items()}


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    present = np.isfinite(first) & np.isfinite(second)
    first, second = first[present], second[present]
    if len(first) < 3 or np.all(first == first[0]) or np.all(second == second[0]):
        return math.nan
    return float(np.asarray(spearmanr(first, second)[0]))
