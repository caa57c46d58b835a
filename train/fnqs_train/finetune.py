"""Fine-tuning: the settings of a short training, and going on with one that was stopped or killed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from fnqs.errors import InputError
from fnqs.optimisation.subspace import TrainedPart
from fnqs_data.store.record import Record, encode_record
from fnqs_data.store.store import Dataset, open_dataset
from fnqs_data.store.write import write_dataset
from fnqs_train.config import CONFIG_NAME, RunConfig, check_config, load_config
from fnqs_train.monitoring.convergence import WINDOW, has_converged
from fnqs_train.monitoring.metrics import read_metrics
from fnqs_train.run_folder import steps_done

DATASET_NAME = "dataset"
"""Folder, in that of the run, of the configurations it is made from: a copy of the run has them too."""

SAVED_EVERY = 10
"""Steps between two checkpoints of a fine-tuning, whose steps take seconds."""


def finetune_config(
    parent: RunConfig,
    *,
    name: str,
    recipe: str,
    steps: int,
    walkers: int,
    together: int,
    learning_rate: float | None = None,
    part: TrainedPart = "all",
    rank: int | None = None,
) -> RunConfig:
    """Set up a short training with the model of `parent`; what is None is as there.

    A cool-down as long as the parent's would leave no step of a short training at its full rate: it gets half the
    steps at most.

    Raises:
        InputError: the part goes not with the parent's optimiser.
    """
    optimizer = dataclasses.replace(
        parent.optimizer,
        learning_rate=learning_rate or parent.optimizer.learning_rate,
        cooldown_steps=min(parent.optimizer.cooldown_steps, steps // 2),
        train=part,
        rank=rank or parent.optimizer.rank,
    )
    config = dataclasses.replace(
        parent,
        name=name,
        steps=steps,
        data=dataclasses.replace(parent.data, recipe=recipe, split="train"),
        sampling=dataclasses.replace(
            parent.sampling, walkers_per_configuration=walkers, configurations_per_step=together
        ),
        optimizer=optimizer,
        checkpoint=dataclasses.replace(parent.checkpoint, every_steps=SAVED_EVERY),
        log=dataclasses.replace(parent.log, every_steps=1),
    )
    check_config(config, name)
    return config


def resumed_config(run_folder: Path, steps: int | None, given: dict[str, object]) -> RunConfig:
    """Read the settings of a fine-tuning that goes on; it may only get longer.

    Args:
        run_folder: of the fine-tuning.
        steps: of the whole training, if they were given again.
        given: options that were given again, under the names of the config.

    Raises:
        InputError: an option differs from what the run was started with, or more steps than wanted are done.
    """
    config = load_config(run_folder)
    done = steps_done(run_folder) or 0
    if steps is not None and steps < done:
        raise InputError(f"{run_folder}: {done} steps are done already; give more --steps than that")
    sampling, optimizer = config.sampling, config.optimizer
    before = {
        "walkers": sampling.walkers_per_configuration,
        "together": sampling.configurations_per_step,
        "learning-rate": optimizer.learning_rate,
        "train": optimizer.train,
        "rank": optimizer.rank,
    }
    changes = [f"--{name}: {before[name]} -> {value}" for name, value in given.items() if value != before[name]]
    if changes:
        raise InputError(
            f"{run_folder}: a resumed fine-tuning keeps its settings, but these differ: {', '.join(changes)}; leave "
            f"them out, or choose another folder with --output"
        )
    return config if steps is None else dataclasses.replace(config, steps=steps)


def training_set(run_folder: Path, records: Sequence[Record] | None, source: Path | None) -> Dataset:
    """Open the configurations in a run folder, or write them there if this has not been done.

    Args:
        run_folder: of the fine-tuning.
        records: what the user has selected, to be written or compared; None: what is there is taken.
        source: the file they were read from.

    Raises:
        InputError: the run was made from other configurations, or nobody says from which.
        OSError: they cannot be written.
    """
    folder = run_folder / DATASET_NAME
    if not folder.exists() or not any(folder.iterdir()):
        if records is None:
            raise InputError(f"{folder}: there are no configurations; name their file with --configurations")
        return write_dataset(folder, records, note=f"from {source.name if source else 'memory'}")
    dataset = open_dataset(folder)
    if records is not None and [encode_record(record) for record in records] != [
        encode_record(dataset[i]) for i in range(len(dataset))
    ]:
        raise InputError(
            f"{run_folder}: the run was made from {len(dataset)} other configurations than the {len(records)} selected "
            f"in {source}; leave --configurations out to go on with them, or choose another folder with --output"
        )
    return dataset


def is_finetuning(run_folder: Path) -> bool:
    """Whether a folder is that of a fine-tuning, which has its configurations in it."""
    return (run_folder / CONFIG_NAME).is_file() and (run_folder / DATASET_NAME).is_dir()


def converged(run_folder: Path, gain: float) -> Callable[[int], bool]:
    """Return a function that tells after some steps whether the energy has converged; it looks after every window.

    Args:
        run_folder: of the run, whose record is read.
        gain: Ha per atom, see `has_converged`.
    """

    def enough(done: int) -> bool:
        return done % WINDOW == 0 and has_converged(read_metrics(run_folder), gain)

    return enough


def convergence_sentence(run_folder: Path, gain: float) -> str:
    """Say how a training with `converged` has ended."""
    done = steps_done(run_folder)
    if has_converged(read_metrics(run_folder), gain):
        return f"converged to {gain * 1e3:g} mHa per atom after {done} steps"
    return (
        f"not converged to {gain * 1e3:g} mHa per atom within {done} steps; go on with --resume and more --steps, or "
        f"take it as it is"
    )
