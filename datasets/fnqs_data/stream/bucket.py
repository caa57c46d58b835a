"""The order of the configurations of one kind: shuffled anew in every epoch, and cut into batches."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fnqs_data.stream.mixture import RESOLUTION, systematic_sample


class Bucket:
    """The endless sequence of batches of one N, all at Gamma or all twisted.

    The permutation of an epoch is numpy's, and a batch is a slice of it: 4 bytes and 0.04 microseconds a configuration.
    Grain's shuffle needs no memory, but 10 microseconds an element in a bucket of 17,174 or 2,000,000, 270 in one of
    100 and 4,200 in one of 5 (processor time): it draws from a range of 2^16 until a number falls into the bucket.

    Attributes:
        number: N.
        twisted: whether the configurations have a general twist, or are all at Gamma.
        size: configurations in a batch.
        batches: number of batches in an epoch.
    """

    def __init__(self, number: int, twisted: bool, indices: np.ndarray, shares: np.ndarray, *, largest: int, seed: int):
        """Count the visits of an epoch.

        Args:
            number: N.
            twisted: of a general twist.
            indices: (M,) data set positions.
            shares: (M,) integer weights, each from 1 to `RESOLUTION`.
            largest: configurations in a batch, if there are so many.
            seed: of the run.
        """
        # No share exceeds RESOLUTION, so this many can be drawn without drawing one twice.
        visits = max(1, int(shares.sum()) // RESOLUTION)
        weighted = visits < len(indices)
        self.number, self.twisted = number, twisted
        self.size = min(largest, visits)
        self.batches = visits // self.size

        @lru_cache(maxsize=2)
        def order(epoch: int) -> np.ndarray:
            rng = np.random.default_rng((seed, number, epoch))
            places = rng.permutation(np.arange(len(indices), dtype=np.int32))
            if weighted:
                places = places[systematic_sample(shares[places], visits, rng.random())]
            return places

        self._indices, self._order = indices, order

    def batch(self, count: int) -> np.ndarray:
        """Return the data set positions (size,) int64 of the batch before which there were `count` others."""
        epoch, rank = divmod(count, self.batches)
        return self._indices[self._order(epoch)[rank * self.size : (rank + 1) * self.size]]
