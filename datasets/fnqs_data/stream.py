"""The endless, resumable sequence of batches that training sees: a pure function of (data, K, seed, step).

Configurations are bucketed by N, so that every step has one N and static shapes. Inside a bucket Grain shuffles
anew each epoch and then batches; the buckets are interleaved evenly, each as often as it has batches.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import grain
import msgspec
import numpy as np

from fnqs.configuration import Configuration
from fnqs.errors import InputError
from fnqs_data.store import Dataset


@dataclass(frozen=True)
class Batch:
    """K different configurations of one N.

    Attributes:
        number: N.
        indices: (K,) int64 positions in the data set.
        configurations: cell (K, 3, 3), protons (K, N, 3) in bohr, twist (K, 3); float64.
    """

    number: int
    indices: np.ndarray
    configurations: Configuration


class ConfigurationStream:
    """Random access to the batches of a training run; nothing to save for a resume but the step.

    One cycle of steps is one epoch of every bucket. A bucket whose size is not a multiple of its batch
    leaves a different, random remainder out of each epoch, so no batch holds a configuration twice and all
    are visited equally often over a long run. A bucket smaller than K has batches of its whole size.

    Attributes:
        numbers: the values of N that occur, ascending.
        fingerprint: identifies data, selection, K and seed; a run must not be resumed with another one.
    """

    def __init__(self, dataset: Dataset, indices: np.ndarray, *, batch_configurations: int, seed: int):
        """Prepare the buckets.

        Args:
            dataset: where the configurations come from.
            indices: (M,) positions of those to use.
            batch_configurations: K, configurations in one batch.
            seed: of the shuffles, 0 <= seed < 2^32.

        Raises:
            InputError: if nothing is selected or K is not positive.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            raise InputError(f"{dataset.folder}: no configurations are selected; check split, phase and N")
        if batch_configurations < 1:
            raise InputError(f"the batch must hold at least one configuration, not {batch_configurations}")
        self._dataset = dataset
        numbers = dataset.numbers[chosen]
        self.numbers: tuple[int, ...] = tuple(int(n) for n in np.unique(numbers))
        self._buckets = [
            _shuffled_batches(chosen[numbers == n], batch_configurations, seed + n) for n in self.numbers
        ]
        self._turns, self._ranks = _interleave([len(bucket) for bucket in self._buckets])
        identity = (dataset.digest, batch_configurations, seed, hashlib.blake2b(chosen.tobytes()).hexdigest())
        self.fingerprint: str = hashlib.blake2b(msgspec.json.encode(identity), digest_size=16).hexdigest()

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps after which every bucket has been through once."""
        return len(self._turns)

    def batch_size(self, number: int) -> int:
        """Return K for the bucket of this N."""
        return len(self._buckets[self.numbers.index(number)][0])

    def batch_indices(self, step: int) -> tuple[int, np.ndarray]:
        """N and data set positions (K,) of a step, without reading the configurations."""
        epoch, place = divmod(step, self.steps_per_epoch)
        turn = int(self._turns[place])
        bucket = self._buckets[turn]
        position = epoch * len(bucket) + int(self._ranks[place])
        return self.numbers[turn], np.asarray(bucket[position], dtype=np.int64)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step >= 0."""
        number, indices = self.batch_indices(step)
        return Batch(number, indices, self._dataset.configurations(indices))


def _shuffled_batches(indices: np.ndarray, batch: int, seed: int) -> grain.MapDataset:
    """Batches of one bucket; positions beyond the first epoch are shuffled afresh."""
    source = grain.MapDataset.source(indices).seed(seed % 2**32).shuffle()
    return source.batch(min(batch, len(indices)), drop_remainder=True)


def _interleave(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Spread counts[b] turns of each bucket b evenly over one cycle.

    Returns:
        bucket of each step of the cycle, and how often that bucket had its turn before in the cycle.
    """
    owners = np.concatenate([np.full(count, b) for b, count in enumerate(counts)])
    ranks = np.concatenate([np.arange(count) for count in counts])
    times = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    order = np.lexsort((owners, times))
    return owners[order], ranks[order]
