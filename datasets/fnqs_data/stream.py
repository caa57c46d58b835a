"""The endless, resumable sequence of batches that training sees: a pure function of (data, K, seed, step).

Configurations are bucketed by N, so that every step has one N and static shapes. Inside a bucket the
order is shuffled anew each epoch and Grain makes the batches; the buckets take turns,
evenly spread, each as often as it has batches.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

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
            seed: of the shuffles, 0 <= seed < 2^63.

        Raises:
            InputError: if nothing is selected, K is not positive or the seed is out of range.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            raise InputError(f"{dataset.folder}: no configurations are selected; check split, phase and N")
        if batch_configurations < 1:
            raise InputError(f"the batch must hold at least one configuration, not {batch_configurations}")
        if not 0 <= seed < 2**63:
            raise InputError(f"the seed of the data must lie between 0 and 2^63, not {seed}")
        self._dataset = dataset
        numbers = dataset.numbers[chosen]
        self.numbers: tuple[int, ...] = tuple(int(n) for n in np.unique(numbers))
        members = [chosen[numbers == n] for n in self.numbers]
        self._sizes = [min(batch_configurations, len(bucket)) for bucket in members]
        self._buckets = [
            _shuffled_batches(bucket, size, (seed, n))
            for bucket, size, n in zip(members, self._sizes, self.numbers, strict=True)
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
        return self._sizes[self.numbers.index(number)]

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


def _shuffled_batches(indices: np.ndarray, size: int, seed: tuple[int, int]) -> grain.MapDataset:
    """Batches of one bucket; positions beyond the first epoch are shuffled afresh.

    Grain's own shuffle searches a domain of 2^16 for every element, 6 ms in a bucket of five, so the
    permutation of an epoch comes from numpy.
    """

    @lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return indices[np.random.default_rng((*seed, epoch)).permutation(len(indices))]

    def shuffled(position: int, _) -> int:
        epoch, place = divmod(position, len(indices))
        return int(order(epoch)[place])

    source = grain.MapDataset.range(len(indices)).map_with_index(shuffled)
    return source.batch(size, drop_remainder=True)


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
