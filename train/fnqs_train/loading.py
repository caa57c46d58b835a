"""What commands and the Python door load: configurations of a file, the data set and the parameters of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np

from fnqs.configuration import make_configuration
from fnqs.errors import InputError
from fnqs.model_config import Spin
from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_data.generate.build import cached_dataset
from fnqs_data.readers import read_records
from fnqs_data.store.record import Record
from fnqs_data.store.store import Dataset, open_dataset
from fnqs_train.checkpointing.checkpoint import parameter_names, restore_params
from fnqs_train.checkpointing.steps import CheckpointPath
from fnqs_train.config import RunConfig, recipe_path
from fnqs_train.models.older import NEW, OLD, from_older, older_template


def read_selected(path: Path, frames: str | None) -> list[Record]:
    """Read the records of a file or data set folder that `--frames` selects.

    Raises:
        InputError: unreadable file or frame, or an empty selection.
    """
    chosen = parse_frames(frames) if frames else None
    records = read_records(path, frames=chosen)
    if not records:
        raise InputError(f"{path}: no configurations selected; correct --frames {frames}")
    return [dataclasses.replace(record, split="train") for record in records]


def parse_frames(text: str) -> slice:
    """Turn "17" or "a:b:c" into a slice.

    Raises:
        InputError: for anything else.
    """
    try:
        parts = [int(part) if part.strip() else None for part in text.split(":")]
    except ValueError:
        parts = []
    if len(parts) == 1 and parts[0] is not None:
        return slice(parts[0], parts[0] + 1 or None)
    if 2 <= len(parts) <= 3:
        return slice(*parts)
    raise InputError(f"--frames {text}: give one number, or first:last as in Python")


def with_spin(config: RunConfig, spin: Spin | None) -> RunConfig:
    """Set the total spin of a run's model, where one is asked for."""
    return config if spin is None else dataclasses.replace(config, model=dataclasses.replace(config.model, spin=spin))


def load_dataset(config: RunConfig) -> Dataset:
    """Open the data set of a run, building it into the cache when it is not there yet."""
    source = recipe_path(config)
    if source.is_dir():
        return open_dataset(source)
    return cached_dataset(source, Path(config.data.cache) if config.data.cache else None)


def load_params(checkpoint: CheckpointPath, config: RunConfig) -> dict:
    """Parameters of a checkpoint, checked against the model of its config.

    Raises:
        InputError: damaged, or of another model.
    """
    template, terms = params_template(config), config.model.determinants
    if NEW in template["encoder"] and any(f".{OLD}." in name for name in parameter_names(checkpoint)):
        return from_older(restore_params(checkpoint, template=older_template(template, terms)), terms)
    return restore_params(checkpoint, template=template)


def params_template(config: RunConfig) -> dict:
    """Shapes and dtypes of the parameters of a config's model."""
    smallest = make_configuration(6.0 * np.eye(3), [[0.0, 0.0, 0.0], [1.4, 0.0, 0.0]])
    system = make_system(smallest, config.model)
    return jax.eval_shape(WaveFunction(config.model).init, jax.random.key(0), system)
