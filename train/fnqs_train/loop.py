"""The training loop: one function to read from top to bottom."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.errors import InputError
from fnqs.wavefunction import WaveFunction
from fnqs_data.mixture import mixture_weights
from fnqs_data.store import Dataset
from fnqs_data.stream import ConfigurationStream
from fnqs_train.checkpoint import Checkpoints
from fnqs_train.chunks import choose_chunks
from fnqs_train.config import RunConfig, save_config
from fnqs_train.preparation import PreparedBatches
from fnqs_train.progress import TrainingProgress
from fnqs_train.record import MetricsRecord
from fnqs_train.sharding import fetch_walkers, make_mesh, place_walkers
from fnqs_train.step import Learned, StepReport, make_equilibration, make_optimizer, make_step
from fnqs_train.walkers import Population

PATIENCE = 5
"""Steps in a row that may be refused for non-finite numbers before the last checkpoint is restored."""


def train(
    config: RunConfig,
    run_folder: Path,
    dataset: Dataset,
    *,
    resume: bool = False,
    params: dict | None = None,
    parent: str = "",
) -> dict:
    """Optimise one wave function over the chosen split of a data set.

    Args:
        config: of the run.
        run_folder: for config.toml, checkpoints and metrics.jsonl; made if missing.
        dataset: opened data set.
        resume: go on from the latest checkpoint of the folder.
        params: start from these instead of drawing new ones (fine-tuning).
        parent: what the parameters come from, recorded in every checkpoint.

    Returns:
        the final parameters.

    Raises:
        InputError: an empty split, a checkpoint of another model or other data, or numbers that stay
            non-finite.
    """
    # ---- Data: which configurations, in which order
    indices = dataset.where(split=config.data.split)
    if not len(indices):
        raise InputError(f"{dataset.folder}: no configurations with split {config.data.split!r} to train on")
    sampling = config.sampling
    stream = ConfigurationStream(
        dataset,
        indices,
        batch_configurations=sampling.configurations_per_step,
        seed=config.seed,
        weights=mixture_weights(
            dataset, indices, phases=config.data.phase_weights, densities=config.data.density_weights
        ),
    )

    # ---- Devices, model, optimiser and walkers
    mesh = make_mesh(sampling.walkers_per_configuration)
    wavefunction = WaveFunction(config.model)
    optimizer = make_optimizer(config.optimizer)
    population = Population(dataset.numbers, indices, sampling.walkers_per_configuration)
    equilibrate = make_equilibration(wavefunction, sampling, mesh)
    # Every random number is a function of (seed, step).
    root = jax.random.key(config.seed)

    with (
        Checkpoints(
            run_folder, keep=config.checkpoint.keep, every_nth_kept=config.checkpoint.every_nth_kept
        ) as checkpoints,
        PreparedBatches(stream, config.model) as prepared,
        _stop_requested() as stop,
    ):
        if params is None:
            first_system = jax.tree.map(lambda leaf: leaf[0], prepared.get(0)[1])
            params = jax.jit(wavefunction.init)(jax.random.fold_in(root, 2**31), first_system)
        # A step gives its arguments away: the caller keeps theirs.
        own: dict = jax.tree.map(jnp.array, params)
        learned = Learned(own, optimizer.init(own))
        start = 0

        # ---- Resume: parameters, optimiser, walkers, step, in that order
        if resume:
            restored = checkpoints.restore_latest(learned.params, learned.optimizer)
            if restored is not None:
                if restored.meta["data_fingerprint"] != stream.fingerprint:
                    raise InputError(
                        f"{run_folder}: the run was trained on other data, another batch or another seed; "
                        f"resume it with its own config"
                    )
                learned = Learned(restored.params, restored.optimizer)
                population.restore(restored.walkers)
                start = restored.step

        def save(step: int, report: StepReport) -> None:
            meta = {
                "data_fingerprint": stream.fingerprint,
                "energy_per_atom": _mean_energy(report),
                "parent": parent,
                "visited": population.visited,
                "configurations": len(indices),
            }
            checkpoints.save(step, learned.params, learned.optimizer, population.state(), meta)

        with (
            MetricsRecord(
                run_folder,
                resume_step=start if resume else None,
                wandb=config.log.wandb,
                name=config.name,
            ) as record,
            TrainingProgress(config.steps, first=start) as progress,
        ):
            save_config(config, run_folder)  # only now is it sure that the folder is this run's
            steps: dict[tuple[int, bool], object] = {}
            refused, restored_once = 0, False
            window = _Window()
            began = time.monotonic()
            for step in range(start, config.steps):
                # ---- Input: configurations of one N with their walkers
                began_step = time.monotonic()
                batch, systems = prepared.get(step)
                waited = time.monotonic() - began_step
                key, equilibration_key = jax.random.split(jax.random.fold_in(root, step))
                walkers, widths, fresh = population.take(batch.number, batch.indices)
                walkers = place_walkers(mesh, walkers)

                # ---- New configurations equilibrate before they count, off the gradient path
                if fresh.any():
                    walkers, widths, _ = equilibrate(learned.params, systems, walkers, widths, fresh, equilibration_key)

                # ---- Step
                kind = (batch.number, batch.twisted)
                if kind not in steps:
                    steps[kind] = make_step(
                        wavefunction,
                        optimizer,
                        sampling,
                        config.optimizer.clip_width,
                        choose_chunks(batch.number, config.model, config.memory),
                        mesh,
                    )
                learned, walkers, widths, report = steps[kind](learned, systems, walkers, widths, key)  # type: ignore[operator]
                report = jax.device_get(report)
                population.put(
                    batch.number,
                    batch.indices,
                    fetch_walkers(walkers),
                    np.asarray(widths),
                    report.acceptance,
                )

                # ---- Faults: say which configuration, start its walkers again, go back if it lasts
                lost = [dataset.identifiers[i] for i in batch.indices[~report.finite]]
                if lost or not report.taken:
                    population.forget(batch.number, batch.indices[~report.finite])
                    what = f"non-finite numbers at {', '.join(lost)}" if lost else "a non-finite solve"
                    outcome = "left out of the step" if report.taken else "step skipped"
                    progress.message(f"step {step + 1}: {what}; {outcome}")
                refused = 0 if report.taken else refused + 1
                if refused > PATIENCE:
                    restored = None if restored_once else checkpoints.restore_latest(*learned)
                    if restored is None:
                        raise InputError(
                            f"step {step + 1}: the numbers stay non-finite ({', '.join(lost) or 'solve'}); "
                            f"lower optimizer.learning_rate or raise optimizer.damping, then start again"
                        )
                    learned = Learned(restored.params, restored.optimizer)
                    refused, restored_once = 0, True
                    progress.message(f"parameters of step {restored.step} restored")

                # ---- Record and checkpoint
                window.add(report, lost, time.monotonic() - began_step, waited)
                done = step + 1
                progress.update(
                    done,
                    window.energy,
                    window.error,
                    window.variance,
                    float(np.mean(report.acceptance)),
                    time.monotonic() - began_step,
                )
                if done % config.log.every_steps == 0 or done == config.steps:
                    record.write(
                        done,
                        window.row()
                        | {
                            "number": batch.number,
                            "update_norm": report.update_norm,
                            "fallback": bool(report.fallback),
                            "visited": population.visited,
                            "elapsed_seconds": time.monotonic() - began,
                        },
                    )
                    window = _Window()
                stopping = stop.is_set()
                if done % config.checkpoint.every_steps == 0 or done == config.steps or stopping:
                    save(done, report)
                if stopping:
                    progress.message(f"stopped at step {done} as asked; resume with --resume")
                    raise KeyboardInterrupt
    return learned.params


def _mean_energy(report: StepReport) -> float | None:
    """E/N (Ha) over the configurations with finite numbers."""
    return float(np.mean(report.energy[report.finite])) if report.finite.any() else None


class _Window:
    """Averages over the steps since the last line of the record."""

    def __init__(self):
        self._rows: list[tuple[float, float, float, float, float]] = []
        self._lost: list[str] = []

    def add(self, report: StepReport, lost: list[str], seconds: float, waited: float) -> None:
        self._lost += [name for name in lost if name not in self._lost]
        good = report.finite
        if good.any():
            self._rows.append(
                (
                    float(np.mean(report.energy[good])),
                    float(np.mean(report.variance[good])),
                    float(np.mean(report.acceptance[good])),
                    seconds,
                    waited,
                )
            )

    def _mean(self, column: int) -> float:
        return float(np.mean([row[column] for row in self._rows])) if self._rows else float("nan")

    @property
    def energy(self) -> float:
        return self._mean(0)

    @property
    def error(self) -> float | None:
        """Standard error of the mean from the scatter of the steps, that of the configurations included."""
        if len(self._rows) < 3:
            return None
        return float(np.std([row[0] for row in self._rows], ddof=1) / np.sqrt(len(self._rows)))

    @property
    def variance(self) -> float:
        return self._mean(1)

    def row(self) -> dict[str, float | list[str] | None]:
        return {
            "energy_per_atom": self.energy,
            "energy_error": self.error,
            "variance_per_atom": self.variance,
            "acceptance": self._mean(2),
            "seconds_per_step": self._mean(3),
            "data_wait_seconds": self._mean(4),
            "non_finite": self._lost,
        }


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event, so that the step in progress is finished and saved."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    for name in before:
        signal.signal(name, lambda *_: event.set())
    try:
        yield event
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
