"""The protocol used when none is given: held-out splits of the run's data set, with `[transfer]` of its config.

Configurations and walkers per step are those of the run itself, so that its compiled programs are reused.
"""

from __future__ import annotations

import numpy as np

from fnqs.errors import InputError
from fnqs_data.store.store import Dataset
from fnqs_train.config import RunConfig

SPLITS = ("held-out-density", "held-out-phase")
"""Splits made by a recipe's `[held_out]` that are evaluated."""


def default_protocol(config: RunConfig, dataset: Dataset) -> str:
    """Write the protocol as TOML.

    Args:
        config: of the run.
        dataset: that it was trained on.

    Raises:
        InputError: nothing was held out of the data set.
    """
    transfer, sampling = config.transfer, config.sampling
    splits = [split for split in SPLITS if len(dataset.where(split=split))]
    if not splits:
        raise InputError(
            f"{dataset.folder}: nothing is held out as {' or '.join(map(repr, SPLITS))}; name densities or phases "
            f"under [held_out] in the recipe and train again, or give what was held out with --protocol FILE"
        )
    numbers = np.concatenate([dataset.n_atoms[dataset.where(split=split)] for split in splits])
    number = transfer.number if np.any(numbers == transfer.number) else int(numbers.max())
    names = ", ".join(f'"{split}"' for split in splits)
    return f"""# What `fnqs-evaluate transfer` does without --protocol, from [transfer] in the run's config.
evaluate = "ends"
error = {transfer.target_error!r}
walkers = {transfer.walkers}
equilibration_sweeps = {transfer.equilibration_sweeps}
measurements = {max(2, transfer.evaluation_sweeps // 10)}
forgetting_configurations = 0
seed = {config.seed}

[[item]]
name = "held-out"
split = [{names}]
configurations = {transfer.configurations}
number = {number}
walkers = {sampling.walkers_per_configuration}
together = {sampling.configurations_per_step}
finetune_steps = {transfer.finetune_steps}
scratch_steps = {transfer.finetune_steps}
"""
