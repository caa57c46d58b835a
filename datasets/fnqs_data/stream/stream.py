"""The endless, resumable sequence of batches that training sees: a pure function of (data, K, seed, weights, step).

Configurations are bucketed by N and by whether they are at Gamma, so that every step has static shapes and one type
of wave function, real or complex. Inside a bucket the order is shuffled anew each epoch; the buckets take turns,
evenly spread, each as often as it has batches.

Several processes share one global sequence: the shuffle comes first, and of every global batch each process
reads a part. The sequence does not know how many processes there are, so a run saved on two of them
continues on one or on four.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import grain
import msgspec
import numpy as np

from fnqs.configuration import Configuration
from fnqs.errors import InputError
from fnqs_data.store.store import Dataset
from fnqs_data.stream.mixture import RESOLUTION, integer_weights, systematic_sample


@dataclass(frozen=True)
class Batch:
    """K different configurations of one N, or one process's part of them.

    Attributes:
        number: N.
        twisted: whether they have a general twist, and so a complex wave function, or are all at Gamma.
        indices: (K,) int64 positions in the data set.
        configurations: cell (K, 3, 3), protons (K, N, 3) in bohr, twist (K, 3); float64.
    """

    number: int
    twisted: bool
    indices: np.ndarray
    configurations: Configuration


class ConfigurationStream:
    """Random access to the batches of a training run; nothing to save for a resume but the step.

    One cycle of steps is one epoch of every bucket. A bucket whose size is not a multiple of its batch
    leaves a different, random remainder out of each epoch, so no batch holds a configuration twice and all
    are visited equally often over a long run. A bucket smaller than K has batches of its whole size.

    With weights, an epoch visits the heaviest configurations once and the others with the ratio of their weight
    to the largest as probability, drawn anew for each epoch; equal weights give the order without weights.

    Attributes:
        numbers: the values of N that occur, ascending.
        fingerprint: identifies data, selection, K, seed and weights, not the processes; a run must not be
            resumed with another one.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: np.ndarray,
        *,
        batch_configurations: int,
        seed: int,
        weights: np.ndarray | None = None,
        process: int = 0,
        processes: int = 1,
    ):
        """Prepare the buckets.

        Args:
            dataset: where the configurations come from.
            indices: (M,) positions of those to use.
            batch_configurations: K, configurations in one global batch.
            seed: of the shuffles, 0 <= seed < 2^63.
            weights: (M,) how often each is visited, relative to the others; 0 leaves it out. None: equally.
            process: which part of every batch `batch` reads, 0 <= process < processes.
            processes: P, parts of a batch; they differ in size by at most one, and by none if P divides K.

        Raises:
            InputError: if nothing is selected, K is not positive, the seed is out of range, the weights are
                not numbers of at least 0, one for each index, or there is no such process.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            raise InputError(f"{dataset.folder}: no configurations are selected; check split, phase and N")
        if batch_configurations < 1:
            raise InputError(f"the batch must hold at least one configuration, not {batch_configurations}")
        if not 0 <= seed < 2**63:
            raise InputError(f"the seed of the data must lie between 0 and 2^63, not {seed}")
        if not 0 <= process < processes:
            raise InputError(f"there is no process {process} among {processes}; count from 0")
        if weights is not None and np.shape(weights) != chosen.shape:
            raise InputError(f"{np.size(weights)} mixture weights were given for {len(chosen)} configurations")
        identity = [dataset.digest, batch_configurations, seed, hashlib.blake2b(chosen.tobytes()).hexdigest()]
        shares = np.full(len(chosen), RESOLUTION) if weights is None else integer_weights(weights)
        if np.any(shares != RESOLUTION):
            identity.append(hashlib.blake2b(shares.astype("<i8").tobytes()).hexdigest())
            chosen, shares = chosen[shares > 0], shares[shares > 0]
        self.fingerprint: str = hashlib.blake2b(msgspec.json.encode(tuple(identity)), digest_size=16).hexdigest()
        self._dataset = dataset
        self._process, self._processes = process, processes
        numbers, twisted = dataset.numbers[chosen], dataset.twisted[chosen]
        self.numbers: tuple[int, ...] = tuple(int(n) for n in np.unique(numbers))
        self._kinds = sorted({(int(n), bool(t)) for n, t in zip(numbers, twisted, strict=True)})
        self._buckets = []
        for n, t in self._kinds:
            members = (numbers == n) & (twisted == t)
            self._buckets.append(_Bucket(chosen[members], shares[members], batch_configurations, (seed, n)))
        self._turns, self._ranks = _interleave([bucket.batches for bucket in self._buckets])

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps after which every bucket has been through once."""
        return len(self._turns)

    def epoch(self, step: int) -> int:
        """Return the number of whole epochs before a step."""
        return step // self.steps_per_epoch

    def batch_size(self, number: int, twisted: bool) -> int:
        """Return K for the bucket of this N, at Gamma or twisted, over all processes."""
        return self._buckets[self._kinds.index((number, twisted))].size

    def part(self, number: int, twisted: bool) -> slice:
        """Return the share of this process in the batches of this N, at Gamma or twisted."""
        size = self.batch_size(number, twisted)
        return slice(size * self._process // self._processes, size * (self._process + 1) // self._processes)

    def batch_indices(self, step: int) -> tuple[int, np.ndarray]:
        """N and data set positions (K,) of a step over all processes, without reading the configurations."""
        (number, _), indices = self._global_batch(step)
        return number, indices

    def batch(self, step: int) -> Batch:
        """Return this process's part of the batch of a step >= 0."""
        (number, twisted), indices = self._global_batch(step)
        return self.read(step, indices[self.part(number, twisted)])

    def members(self, step: int) -> np.ndarray:
        """Return the data set positions of all configurations of the N whose turn a step is."""
        bucket = self._buckets[int(self._turns[step % self.steps_per_epoch])]
        return bucket.indices

    def read(self, step: int, indices: np.ndarray) -> Batch:
        """Return a batch of chosen configurations, of `members(step)`, instead of the one of the sequence."""
        number, twisted = self._kinds[int(self._turns[step % self.steps_per_epoch])]
        return Batch(number, twisted, indices, self._dataset.configurations(indices))

    def epochs(self) -> grain.MapDataset[Batch]:
        """Return the same batches as an endless Grain data set, element s for step s.

        `to_iter_dataset()` of it, or of a slice from the step of a resume on, reads ahead in threads.
        """
        steps = grain.MapDataset.range(self.steps_per_epoch).map_with_index(lambda step, _: self.batch(step))
        return steps.repeat()

    def state(self, step: int) -> dict[str, int | str]:
        """Everything a checkpoint needs in order to go on with this step, whatever the number of processes."""
        return {"step": step, "fingerprint": self.fingerprint}

    def resume(self, state: Mapping[str, int | str]) -> int:
        """Return the step of a saved state.

        Raises:
            InputError: it is of other data, another selection, batch, seed or other weights.
        """
        if state.get("fingerprint") != self.fingerprint:
            raise InputError(
                f"{self._dataset.folder}: the saved state is of other data, another batch, seed or mixture; "
                f"continue with those of the run"
            )
        return int(state["step"])

    def _global_batch(self, step: int) -> tuple[tuple[int, bool], np.ndarray]:
        """Kind (N, twisted) and data set positions (K,) of a step over all processes."""
        epoch, place = divmod(step, self.steps_per_epoch)
        turn = int(self._turns[place])
        return self._kinds[turn], self._buckets[turn].batch(epoch, int(self._ranks[place]))


class _Bucket:
    """The shuffled batches of one N, all at Gamma or all twisted.

    Grain's own shuffle searches a domain of 2^16 for every element, 6 ms in a bucket of five, and builds a batch
    element by element; a permutation from numpy takes 4 bytes a configuration, and a batch is a slice of it.

    Attributes:
        indices: data set positions of its configurations.
        size: configurations in a batch.
        batches: number of batches in an epoch.
    """

    def __init__(self, indices: np.ndarray, shares: np.ndarray, largest: int, seed: tuple[int, int]):
        # No share exceeds RESOLUTION, so this many can be drawn without drawing one twice.
        visits = max(1, int(shares.sum()) // RESOLUTION)
        weighted = visits < len(indices)
        self.size = min(largest, visits)
        self.batches = visits // self.size

        @lru_cache(maxsize=2)
        def order(epoch: int) -> np.ndarray:
            rng = np.random.default_rng((*seed, epoch))
            places = rng.permutation(np.arange(len(indices), dtype=np.int32))
            if weighted:
                places = places[systematic_sample(shares[places], visits, rng.random())]
            return places

        self.indices, self._order = indices, order

    def batch(self, epoch: int, rank: int) -> np.ndarray:
        """Return the data set positions (size,) int64 of a batch of an epoch."""
        return self.indices[self._order(epoch)[rank * self.size : (rank + 1) * self.size]]


def _interleave(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Spread counts[b] turns of each bucket b evenly over one cycle.

    Returns:
        bucket of each step of the cycle, and how often that bucket had its turn before in the cycle.
    """
    owners = np.concatenate([np.full(count, b, dtype=np.int32) for b, count in enumerate(counts)])
    ranks = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    times = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    order = np.lexsort((owners, times))
    return owners[order], ranks[order]
