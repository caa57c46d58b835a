"""A trained model in Python: what the commands do, without a command line.

from fnqs_eval import load_model

model = load_model("foundation")
[result] = model.energies("my.extxyz", error=1e-3)
phase, log = model.log_psi(configuration, electrons)
"""

from __future__ import annotations

import dataclasses
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.configuration import Configuration
from fnqs.errors import InputError
from fnqs.hamiltonian import local_energy
from fnqs.model_config import Spin
from fnqs.precision import configure
from fnqs.system import System, make_system
from fnqs.wavefunction import Context, WaveFunction
from fnqs_data.readers import read_records
from fnqs_data.store.record import Record
from fnqs_eval.energies.energy import EvaluationSettings, evaluate_records
from fnqs_eval.energies.evaluate import finish, known_dataset
from fnqs_eval.energies.reliability import training_distribution
from fnqs_eval.energies.table import EnergyResult
from fnqs_eval.observables.deformations import Derivatives
from fnqs_eval.observables.observe import observe_records
from fnqs_eval.observables.result import ObservablesResult
from fnqs_eval.observables.sample import ObservableSettings
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint
from fnqs_train.checkpointing.steps import CheckpointPath
from fnqs_train.config import RunConfig, load_config
from fnqs_train.finetune import DATASET_NAME, finetune_config, training_set
from fnqs_train.loading import load_params, with_spin
from fnqs_train.loop import train
from fnqs_train.run_folder import is_empty, used_alone

KEPT = 16
"""Configurations whose integrals and context are kept for the next call."""

Configurations = str | os.PathLike | Configuration | Record | Iterable[Configuration | Record]
"""A file or data set folder, one configuration, or several."""


def load_model(checkpoint: str | os.PathLike, spin: Spin | None = None) -> Model:
    """Load a run folder, a step in it (`runs/mine/checkpoints/250`), or a model that comes with fnqs ("foundation").

    Numerical settings of the process are made as by `fnqs.configure()`: float64 is on from here.

    Args:
        checkpoint: what to load.
        spin: total spin at Gamma, "singlet" or "triplet"; None for that of the run.

    Raises:
        InputError: there is no such run, or it is damaged.
    """
    configure()
    found = resolve_checkpoint(Path(checkpoint))
    config = with_spin(load_config(found.run_folder), spin)
    return Model(found, config, load_params(found, config))


class Model:
    """One wave function for every configuration of protons; made by `load_model`.

    Attributes:
        checkpoint: where it was loaded from.
        config: settings of the run.
        params: parameters.
        wavefunction: `encode` and `log_psi` as pure functions of parameters.
    """

    def __init__(self, checkpoint: CheckpointPath, config: RunConfig, params: dict):
        self.checkpoint, self.config, self.params = checkpoint, config, params
        self.wavefunction = WaveFunction(config.model)
        self._kept: OrderedDict[bytes, tuple[System, Context]] = OrderedDict()
        self._encode = jax.jit(self.wavefunction.encode)
        self._log_psi = jax.jit(_over_walkers(lambda p, context, _, r: self.wavefunction.log_psi(p, context, r)))
        self._energy = jax.jit(
            _over_walkers(lambda p, context, system, r: local_energy(self.wavefunction, p, context, system, r))
        )

    def __repr__(self) -> str:
        count = sum(np.size(leaf) for leaf in jax.tree.leaves(self.params))
        return f"Model({self.config.name}, step {self.checkpoint.step}, {count:,} parameters)"

    def log_psi(self, configuration: Configuration, electrons: np.ndarray | jax.Array) -> tuple[jax.Array, jax.Array]:
        """Evaluate psi.

        Args:
            configuration: N protons.
            electrons: (N, 3) or (n, N, 3) bohr, the first N/2 with spin up; rounded to the precision of the parameters.

        Returns:
            phase (a sign where psi is real) and log|psi|, () or (n,).
        """
        return self._evaluate(self._log_psi, configuration, electrons)

    def local_energy(self, configuration: Configuration, electrons: np.ndarray | jax.Array) -> jax.Array:
        """Local energy of the cell in Ha, () or (n,), complex at a general twist; arguments as for `log_psi`."""
        return self._evaluate(self._energy, configuration, electrons)

    def energies(
        self,
        configurations: Configurations,
        *,
        error: float = 1e-3,
        walkers: int = 64,
        measurements: int = 1024,
        seed: int = 0,
        announce: Callable[[str], None] = lambda text: None,
    ) -> list[EnergyResult]:
        """Sample configurations as `fnqs-evaluate energies` does; the same seed and names give the same numbers.

        Args:
            configurations: a file or data set folder, configurations, or records.
            error: standard error of E/N, Ha per atom, at which sampling stops.
            walkers: of each configuration.
            measurements: local energies of every walker after which it stops in any case.
            seed: of walkers and moves.
            announce: called with a line of progress now and then.

        Raises:
            InputError: a file that cannot be read, or nothing to evaluate.
        """
        records = as_records(configurations)
        settings = EvaluationSettings(walkers=walkers, target_error=error, max_measurements=measurements, seed=seed)
        found = evaluate_records(self.wavefunction, self.params, records, settings, steps=0, announce=announce)
        dataset = known_dataset(self.config)
        distribution = None if dataset is None else training_distribution(dataset, self.config.data.split)
        return finish(found, records, distribution, "first")

    def observables(
        self,
        configurations: Configurations,
        *,
        error: float = 1e-3,
        walkers: int = 64,
        measurements: int = 256,
        derivatives: Derivatives = "all",
        correlations: bool = True,
        seed: int = 0,
        announce: Callable[[str], None] = lambda text: None,
    ) -> list[ObservablesResult]:
        """Measure pressure, stress, forces and correlation functions as `fnqs-evaluate observables` does.

        Args:
            configurations: a file or data set folder, configurations, or records.
            error: standard error of E/N, Ha per atom, at which sampling stops.
            walkers: of each configuration.
            measurements: of every walker after which it stops in any case.
            derivatives: "none" for the virial pressure alone, "stress", or "all" for forces too.
            correlations: whether to measure functions of distance and wave vector.
            seed: of walkers and moves.
            announce: called with a line of progress now and then.

        Raises:
            InputError: a file that cannot be read, or nothing to evaluate.
        """
        settings = ObservableSettings(
            walkers=walkers,
            target_error=error,
            max_measurements=measurements,
            derivatives=derivatives,
            correlations=correlations,
            seed=seed,
        )
        return observe_records(self.wavefunction, self.params, as_records(configurations), settings, announce)

    def finetune(
        self,
        configurations: Configurations,
        folder: str | os.PathLike,
        *,
        steps: int = 100,
        walkers: int = 128,
        together: int = 4,
    ) -> Model:
        """Continue the training on these configurations, as `fnqs-finetune` does.

        Args:
            configurations: to train on.
            folder: new run folder for record and checkpoints.
            steps: of the optimisation.
            walkers: of each configuration.
            together: configurations in a step.

        Returns:
            the fine-tuned model; this one stays as it is.

        Raises:
            InputError: the folder is not empty, or a file cannot be read.
        """
        run_folder = Path(folder)
        source = Path(configurations) if isinstance(configurations, str | os.PathLike) else None
        records = [dataclasses.replace(record, split="train") for record in as_records(configurations)]
        with used_alone(run_folder, "fnqs_eval"):
            if not is_empty(run_folder):
                raise InputError(f"{run_folder}: the folder is not empty; choose another one")
            recipe = str((run_folder / DATASET_NAME).resolve())
            config = finetune_config(
                self.config,
                name=run_folder.resolve().name,
                recipe=recipe,
                steps=steps,
                walkers=walkers,
                together=together,
            )
            dataset = training_set(run_folder, records, source)
            origin = f"{self.checkpoint.run_folder.name} step {self.checkpoint.step}"
            train(config, run_folder, dataset, params=self.params, parent=origin)
        return load_model(run_folder)

    def _evaluate(self, function: Callable, configuration: Configuration, electrons: np.ndarray | jax.Array):
        positions = jnp.asarray(electrons, jax.tree.leaves(self.params)[0].dtype)
        n_electrons = np.shape(configuration.protons)[0]
        if positions.shape[-2:] != (n_electrons, 3) or positions.ndim not in (2, 3):
            raise InputError(
                f"electrons of shape {positions.shape}: give ({n_electrons}, 3) or (n, {n_electrons}, 3), in bohr"
            )
        system, context = self._prepared(configuration)
        return function(self.params, context, system, positions)

    def _prepared(self, configuration: Configuration) -> tuple[System, Context]:
        """Return integrals and context of a configuration, kept for the next call."""
        arrays = (np.asarray(leaf) for leaf in (configuration.cell, configuration.protons, configuration.twist))
        key = b"".join(array.astype(np.float64).tobytes() for array in arrays)
        if key not in self._kept:
            system = make_system(configuration, self.config.model)
            self._kept[key] = system, self._encode(self.params, system)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]


def as_records(configurations: Configurations) -> list[Record]:
    """Turn what a user has into records; configurations without a name get a number.

    Raises:
        InputError: a file that cannot be read, or no configuration.
    """
    if isinstance(configurations, str | os.PathLike):
        records = list(read_records(Path(configurations)))
    else:
        if isinstance(configurations, Configuration | Record):
            configurations = [configurations]
        records = [
            item if isinstance(item, Record) else Record(configuration=item, identifier=f"configuration-{place}")
            for place, item in enumerate(configurations)
        ]
    if not records:
        raise InputError("there is no configuration to evaluate")
    return records


def _over_walkers(function: Callable) -> Callable:
    """Take electrons of one walker or of several."""

    def either(params: dict, context: Context, system: System, electrons: jax.Array):
        one = partial(function, params, context, system)
        return one(electrons) if electrons.ndim == 2 else jax.vmap(one)(electrons)

    return either
