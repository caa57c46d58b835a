"""One run's settings: TOML file, `--set` overrides, checks, and the copy kept in the run folder."""

from __future__ import annotations

import dataclasses
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fnqs.cli.files import atomic_write, write_text_atomic
from fnqs.cli.settings import (
    EVEN_N,
    PLAIN_NAME,
    POSITIVE,
    Range,
    apply_overrides,
    at_least,
    check_ranges,
    describe,
    from_table,
    read_toml,
    to_table,
    to_toml,
)
from fnqs.errors import InputError
from fnqs.model_config import ModelConfig
from fnqs.optimisation.natural_gradient import Weighting
from fnqs.optimisation.subspace import TrainedPart
from fnqs_train.chunks import MemoryConfig

CONFIG_NAME = "config.toml"
RECIPE_NAME = "recipe.toml"


@dataclass(frozen=True)
class DataConfig:
    """Which configurations the run learns from.

    Attributes:
        recipe: data set recipe (TOML) or folder; looked for beside the config, then in the current folder.
        cache: folder for built data sets; unset: $FNQS_CACHE, $XDG_CACHE_HOME/fnqs or ~/.cache/fnqs.
        split: name of the split to train on.
        phase_weights: [phase, weight] pairs: how often each is visited; phases not named have weight 1.
        r_s_weights: [lowest r_s, highest r_s, weight] triples (bohr), multiplied with those of the phases.
    """

    recipe: str
    cache: str | None = None
    split: str = "train"
    phase_weights: tuple[tuple[str, float], ...] = ()
    r_s_weights: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class SamplingConfig:
    """Metropolis sampling of the electrons.

    Attributes:
        walkers_per_configuration: walkers of each configuration in a step.
        configurations_per_step: configurations that meet in a step.
        move: Metropolis moves of all electrons, one in three an exchange of two nearby ones of opposite spin, or
            Langevin moves along the gradient of log|psi|, dearer and longer.
        sweeps: moves of every walker between two steps.
        equilibration_sweeps: moves of a configuration seen for the first time, at least; it goes on until the walkers
            have forgotten their first spin patterns.
        stale_after: steps without a visit after which walkers equilibrate again before they count.
        refresh_sweeps: moves of walkers that do so, at least.
    """

    walkers_per_configuration: int = 16
    configurations_per_step: int = 16
    move: Literal["metropolis", "langevin"] = "metropolis"
    sweeps: int = 10
    equilibration_sweeps: int = 100
    stale_after: int = 1000
    refresh_sweeps: int = 20


@dataclass(frozen=True)
class OptimizerConfig:
    """How local energies become steps of the parameters.

    Attributes:
        learning_rate: step length at the start; it falls as 1 / (1 + step / decay_steps).
        decay_steps: steps after which the learning rate has halved.
        cooldown_steps: last steps, in which it falls to zero besides, so that the noise of single steps averages out;
            a run that is resumed with more steps cools down later.
        damping: added to the diagonal of the sample-space Gram matrix.
        momentum: fraction of the last step that is kept, 0 <= momentum < 1; 0 is plain minSR, more is SPRING.
        max_norm: longest step of the parameters, times the learning rate.
        clip_width: mean absolute deviations from the median where local energies are clipped in the gradient.
        weighting: of configurations: "equal", or "spread", which makes their local energies about equally far apart, so
            that large and dense cells do not rule the step.
        train: all parameters, those of pairing head and Jastrow factor only, or low-rank changes of every kernel.
        rank: random directions of the inputs of a kernel in which low-rank changes go.
    """

    learning_rate: float = 0.05
    decay_steps: float = 1000.0
    cooldown_steps: int = 0
    damping: float = 1e-3
    momentum: float = 0.95
    max_norm: float = 1.0
    clip_width: float = 5.0
    weighting: Weighting = "equal"
    train: TrainedPart = "all"
    rank: int = 4


@dataclass(frozen=True)
class PrecisionConfig:
    """The precision of the network; solves, Ewald constants and statistics are float64 in any case.

    Attributes:
        tf32: let accelerators round float32 matrix products to TensorFloat-32; a processor's are not affected.
    """

    tf32: bool = False


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep; the best by energy is always kept.

    Attributes:
        every_steps: steps between two checkpoints.
        keep: latest checkpoints kept, two or more, so that a damaged one can be replaced by the one before.
        every_nth_kept: steps whose multiples are kept for good; unset: none.
    """

    every_steps: int = 100
    keep: int = 2
    every_nth_kept: int | None = None


@dataclass(frozen=True)
class LogConfig:
    """The record of the run.

    Attributes:
        wandb: mirror of metrics.jsonl in Weights & Biases; offline needs neither login nor network.
        every_steps: steps between two lines of metrics.jsonl.
    """

    wandb: Literal["disabled", "offline", "online"] = "offline"
    every_steps: int = 10


@dataclass(frozen=True)
class TransferConfig:
    """What `fnqs-evaluate transfer RUN` does without a protocol; trainings have the walkers of the run's own steps.

    Attributes:
        walkers: walkers of each evaluated configuration.
        equilibration_sweeps: moves before an evaluation counts, at least; how many more is decided by what is measured.
        evaluation_sweeps: all-electron moves, at most, over which an energy is averaged.
        target_error: standard error of E/N (Ha) at which the evaluation of a configuration stops.
        configurations: configurations of the held-out splits together.
        number: protons N in each of them.
        finetune_steps: steps of fine-tuning, and of the comparison from scratch.
    """

    walkers: int = 32
    equilibration_sweeps: int = 200
    evaluation_sweeps: int = 1000
    target_error: float = 3e-3
    configurations: int = 16
    number: int = 8
    finetune_steps: int = 20


@dataclass(frozen=True)
class RunConfig:
    """Everything that fixes a run.

    Attributes:
        name: the run's folder is runs/<name> in the current folder.
        steps: steps of the optimiser in all, those before a resume included.
        seed: of parameters, order of configurations and moves; equal seeds give equal runs on equal machines.
    """

    name: str
    steps: int
    data: DataConfig
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    log: LogConfig = field(default_factory=LogConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)


def load_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config, apply `section.key=value` overrides and check every value.

    Args:
        path: a TOML file, or a run folder, whose config.toml is read.
        overrides: texts of --set; values are TOML (bare words are taken for texts).

    Returns:
        the settings; data.recipe is absolute where it exists, so that the current folder no longer matters.

    Raises:
        InputError: unreadable file, unknown, retired or missing key, wrong type, value out of range.
    """
    path = Path(path)
    if path.is_dir():
        path = path / CONFIG_NAME
    table = read_toml(path)
    apply_overrides(table, overrides)
    _take_old_keys(table, str(path))
    config = from_table(RunConfig, table, str(path))
    check_config(config, str(path))
    for folder in (path.parent, Path()):
        found = folder / Path(config.data.recipe).expanduser()
        if found.exists():
            data = dataclasses.replace(config.data, recipe=str(found.resolve()))
            return dataclasses.replace(config, data=data)
    return config


def recipe_path(config: RunConfig) -> Path:
    """Return the recipe file or data set folder of a loaded config.

    Raises:
        InputError: it is neither beside the config nor in the folder where the config was loaded.
    """
    path = Path(config.data.recipe)
    if not path.exists():
        raise InputError(
            f"data.recipe: {path} is neither beside the config nor in the current folder; "
            f"correct the key or give it with --set data.recipe=PATH"
        )
    return path


def save_config(config: RunConfig, run_folder: str | os.PathLike) -> None:
    """Write config.toml, and the recipe beside it, so that the run folder can be copied and read anywhere.

    Raises:
        OSError: the folder cannot be written.
    """
    run_folder = Path(run_folder)
    recipe = Path(config.data.recipe)
    table = to_table(config)
    if recipe.is_file():
        copy = run_folder / RECIPE_NAME
        if not (copy.exists() and copy.samefile(recipe)):
            with atomic_write(copy) as temporary:
                shutil.copyfile(recipe, temporary)
        table["data"]["recipe"] = RECIPE_NAME
    elif recipe.resolve().is_relative_to(run_folder.resolve()):  # its own data set moves with it
        table["data"]["recipe"] = recipe.resolve().relative_to(run_folder.resolve()).as_posix()
    write_text_atomic(run_folder / CONFIG_NAME, to_toml(table))


def changed_keys(old: RunConfig, new: RunConfig) -> list[str]:
    """List "section.key: old -> new" for every value that differs, the place of the recipe file aside."""
    before, after = (_flat(to_table(config)) for config in (old, new))
    keys = [key for key in {**before, **after} if key != "data.recipe"]
    return [
        f"{key}: {before.get(key, 'unset')} -> {after.get(key, 'unset')}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def describe_config() -> str:
    """Every key of a config with its default and meaning, for `fnqs-train --help`."""
    return "Keys of a config (TOML), each also --set section.key=value:\n" + describe(RunConfig)


def check_config(config: RunConfig, where: str) -> None:
    """Check every value.

    Args:
        config: the settings.
        where: what the user knows them by; it starts the complaint.

    Raises:
        InputError: a value out of range.
    """
    check_ranges(_flat(to_table(config)), _RANGES, where)


SAVED_WITH_EVERY_MODEL = {
    *("s_exponents", "p_exponents", "radial_functions", "features", "vectors", "amplitudes", "occupancies"),
    *("message_rounds", "proton_features", "proton_rounds", "determinants", "antisymmetric"),
}
"""Keys of the [model] table that a run folder of any age holds; who writes a config names a few of them."""


RETIRED: tuple[tuple[str, str, Any], ...] = (
    ("memory", "jacobian_groups", None),  # the derivatives were, at choice, computed in parts
    ("memory", "jacobian_bytes", None),
    ("optimizer", "method", "spring"),
    ("sampling", "target_acceptance", 0.5),
)
"""Keys that are no longer read: section, key, and the value that says what is done anyway; None: any value does."""


def _take_old_keys(table: dict[str, Any], where: str) -> None:
    """Take out or rename keys that configs of older runs hold, and add what they lack.

    Raises:
        InputError: one of them asks for what is no longer there, or stands beside its new name.
    """
    data = table.get("data")
    if isinstance(data, dict) and data.pop("schedule", "uniform") != "uniform":
        raise InputError(
            f"{where}: data.schedule is no longer a choice, all configurations are visited equally often or by "
            f"data.phase_weights and data.r_s_weights; take the line out"
        )
    model = table.get("model")
    if isinstance(model, dict) and model.keys() >= SAVED_WITH_EVERY_MODEL:
        model.setdefault("level_bumps", 0)  # of a run from before they existed
    if isinstance(data, dict) and "density_weights" in data:
        if "r_s_weights" in data:
            raise InputError(f"{where}: data.density_weights is the old name of data.r_s_weights; give one of them")
        data["r_s_weights"] = data.pop("density_weights")
    optimizer = table.get("optimizer")
    if isinstance(optimizer, dict) and optimizer.get("method") == "minsr":  # SPRING without momentum by another name
        optimizer["method"], optimizer["momentum"] = "spring", 0.0
    for name, key, usual in RETIRED:
        section = table.get(name)
        if isinstance(section, dict) and (value := section.pop(key, usual)) != usual and usual is not None:
            warnings.warn(f"{where}: {name}.{key} = {value!r} is no longer a choice and is not read", stacklevel=3)


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result = {}
    for key, value in table.items():
        result.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return result


_RANGES: dict[str, Range] = {
    "name": PLAIN_NAME,
    "seed": ((lambda x: 0 <= x < 2**32), "between 0 and 2^32 - 1"),
    "steps": at_least(0),
    "model.s_exponents": ((lambda x: len(x) > 0 and min(x) > 0), "one or more numbers above 0"),
    "model.p_exponents": ((lambda x: not x or min(x) > 0), "numbers above 0"),
    "model.radial_functions": at_least(1),
    "model.features": at_least(1),
    "model.level_bumps": ((lambda x: x == 0 or x >= 2), "0, or 2 and more"),
    "model.vectors": at_least(1),
    "model.amplitudes": at_least(1),
    "model.occupancies": at_least(1),
    "model.message_rounds": at_least(0),
    "model.proton_features": at_least(1),
    "model.proton_rounds": at_least(0),
    "model.determinants": at_least(1),
    "sampling.walkers_per_configuration": at_least(2),
    "sampling.configurations_per_step": at_least(1),
    "sampling.sweeps": at_least(1),
    "sampling.equilibration_sweeps": at_least(0),
    "sampling.stale_after": at_least(0),
    "sampling.refresh_sweeps": at_least(0),
    "optimizer.learning_rate": POSITIVE,
    "optimizer.decay_steps": POSITIVE,
    "optimizer.cooldown_steps": at_least(0),
    "optimizer.damping": POSITIVE,
    "optimizer.momentum": ((lambda x: 0 <= x < 1), "0 or more and below 1"),
    "optimizer.max_norm": POSITIVE,
    "optimizer.clip_width": POSITIVE,
    "optimizer.rank": at_least(1),
    "checkpoint.every_steps": at_least(1),
    "checkpoint.keep": at_least(2),
    "checkpoint.every_nth_kept": at_least(1),
    "memory.energy_walkers": at_least(0),
    "memory.gradient_walkers": at_least(0),
    "memory.prepared_bytes": at_least(0),
    "log.every_steps": at_least(1),
    "transfer.walkers": at_least(2),
    "transfer.equilibration_sweeps": at_least(0),
    "transfer.evaluation_sweeps": at_least(20),
    "transfer.target_error": POSITIVE,
    "transfer.configurations": at_least(1),
    "transfer.number": EVEN_N,
    "transfer.finetune_steps": at_least(1),
}
