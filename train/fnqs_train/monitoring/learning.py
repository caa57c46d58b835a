"""Whether a training learns: its energy against that of the same configurations with the parameters of its start.

The mean energy of a step says little, because the configurations differ from step to step by far more than what is
learned. So, now and then, the configurations of a step are sampled once more with the parameters that the training
began with: by the same compiled programs, from fresh walkers, without touching anything that the training goes on with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fnqs_train.step import StepReport

EVERY = 20
"""Steps between two measurements: a twentieth of the time of a training at most."""

EARLY = (5, 10)
"""Steps after which it is measured besides, as most is learned at the start."""


class Gain(NamedTuple):
    """What was learned until a step.

    Attributes:
        step: steps done.
        energy: mean E/N minus that of the untrained state for the same configurations, Ha; below zero after learning.
        error: its standard error, Ha, from the variances of the local energies.
    """

    step: int
    energy: float
    error: float


def is_measured(step: int) -> bool:
    """Whether the gain is measured after so many steps."""
    return step % EVERY == 0 or step in EARLY


def measure(step: int, trained: StepReport, untrained: StepReport, n_electrons: int, n_walkers: int) -> Gain | None:
    """Compare a step with the same configurations in the untrained state; None where nothing finite is left of them.

    Args:
        step: steps done.
        trained: report of the last step.
        untrained: report of the same configurations with the first parameters.
        n_electrons: N.
        n_walkers: of each configuration.
    """
    reports = (trained, untrained)
    both = trained.finite & untrained.finite
    if not np.any(both):
        return None
    now, before = (float(np.mean(report.energy[both])) for report in reports)
    squares = sum(float(np.sum(report.variance[both])) for report in reports) / (n_electrons * n_walkers)
    return Gain(step, now - before, float(np.sqrt(squares)) / int(np.sum(both)))
