"""The endless, resumable order of the batches that training sees: a pure function of (data, K, seed, weights, step).

Configurations are bucketed by N and by whether they are at Gamma, so that every step has static shapes and one type
of wave function, real or complex. Inside a bucket the order is shuffled anew each epoch; the buckets take turns,
evenly spread, each as often as it has batches.

The order does not know of processes: several share every batch (`pipeline`), so a run saved on two of them continues
on one or on four. Nothing but the step has to be saved.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import msgspec
import numpy as np

from fnqs.errors import InputError
from fnqs_data.store.store import Dataset
from fnqs_data.stream.bucket import Bucket
from fnqs_data.stream.mixture import RESOLUTION, integer_weights


@dataclass(frozen=True)
class Batch:
    """Which K different configurations of one N meet in a step.

    Attributes:
        number: N.
        twisted: whether they have a general twist, and so a complex wave function, or are all at Gamma.
        indices: (K,) int64 positions in the data set.
    """

    number: int
    twisted: bool
    indices: np.ndarray


class ConfigurationStream:
    """Random access to the batches of a training run.

    One cycle of steps is one epoch of every bucket. A bucket whose size is not a multiple of its batch
    leaves a different, random remainder out of each epoch, so no batch holds a configuration twice and all
    are visited equally often over a long run. A bucket smaller than K has batches of its whole size.

    With weights, an epoch visits the heaviest configurations once and the others with the ratio of their weight
    to the largest as probability, drawn anew for each epoch; equal weights give the order without weights.

    Attributes:
        dataset: where the configurations come from.
        numbers: the values of N that occur, ascending.
        buckets: one for each N, at Gamma and twisted.
        fingerprint: identifies data, selection, K, seed and weights; a run must not be resumed with another one.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: np.ndarray,
        *,
        batch_configurations: int,
        seed: int,
        weights: np.ndarray | None = None,
    ):
        """Prepare the buckets.

        Args:
            dataset: where the configurations come from.
            indices: (M,) positions of those to use.
            batch_configurations: K, configurations in one batch.
            seed: of the shuffles, 0 <= seed < 2^63.
            weights: (M,) how often each is visited, relative to the others; 0 leaves it out. None: equally.

        Raises:
            InputError: if nothing is selected, K is not positive, the seed is out of range, or the weights are
                not numbers of at least 0, one for each index.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            raise InputError(f"{dataset.folder}: no configurations are selected; check split, phase and N")
        if batch_configurations < 1:
            raise InputError(f"the batch must hold at least one configuration, not {batch_configurations}")
        if not 0 <= seed < 2**63:
            raise InputError(f"the seed of the data must lie between 0 and 2^63, not {seed}")
        if weights is not None and np.shape(weights) != chosen.shape:
            raise InputError(f"{np.size(weights)} mixture weights were given for {len(chosen)} configurations")
        identity = [dataset.digest, batch_configurations, seed, hashlib.blake2b(chosen.tobytes()).hexdigest()]
        shares = np.full(len(chosen), RESOLUTION) if weights is None else integer_weights(weights)
        if np.any(shares != RESOLUTION):
            identity.append(hashlib.blake2b(shares.astype("<i8").tobytes()).hexdigest())
            chosen, shares = chosen[shares > 0], shares[shares > 0]
        self.fingerprint: str = hashlib.blake2b(msgspec.json.encode(tuple(identity)), digest_size=16).hexdigest()
        self.dataset = dataset
        numbers, twisted = dataset.n_atoms[chosen], dataset.twisted[chosen]
        self.numbers: tuple[int, ...] = tuple(int(n) for n in np.unique(numbers))
        kinds = sorted({(int(n), bool(t)) for n, t in zip(numbers, twisted, strict=True)})
        members = [(numbers == n) & (twisted == t) for n, t in kinds]
        self.buckets: tuple[Bucket, ...] = tuple(
            Bucket(n, t, chosen[here], shares[here], largest=batch_configurations, seed=seed)
            for (n, t), here in zip(kinds, members, strict=True)
        )
        self._turns, self._ranks = _interleave([bucket.batches for bucket in self.buckets])

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps after which every bucket has been through once."""
        return len(self._turns)

    @property
    def largest_batch(self) -> int:
        """Most configurations in a batch: K, or fewer if there are not so many of one kind."""
        return max(bucket.size for bucket in self.buckets)

    def batch(self, step: int) -> Batch:
        """Return which configurations meet in a step >= 0, without reading them."""
        epoch, place = divmod(step, self.steps_per_epoch)
        bucket = self.buckets[int(self._turns[place])]
        indices = bucket.batch(epoch * bucket.batches + int(self._ranks[place]))
        return Batch(bucket.number, bucket.twisted, indices)

    def check_resume(self, fingerprint: str, run: str | os.PathLike) -> None:
        """Make sure that a saved run goes on in the same order, in however many processes.

        Args:
            fingerprint: saved with the run.
            run: its folder, which starts the complaint.

        Raises:
            InputError: the run is of other data, another selection, batch, seed or other weights.
        """
        if fingerprint != self.fingerprint:
            raise InputError(
                f"{run}: the run was trained on other data, another batch, another seed or other weights; "
                f"resume it with its own config"
            )


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
