"""The training loop: one function to read from top to bottom."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.cli.settings import to_table
from fnqs.cli.text_streams import lasting
from fnqs.errors import InputError
from fnqs.optimisation.subspace import Trained
from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.store import Dataset
from fnqs_data.stream.mixture import mixture_weights
from fnqs_data.stream.prepared_systems import PreparedSystems
from fnqs_data.stream.stream import ConfigurationStream
from fnqs_train.checkpointing.saving import Checkpoints
from fnqs_train.chunks import choose_chunks
from fnqs_train.config import RunConfig, save_config
from fnqs_train.distributed.sharding import fetch_walkers, make_mesh, place_same, place_walkers, random_keys
from fnqs_train.distributed.stopping import Stopped, stop_requested
from fnqs_train.equilibration import make_equilibration
from fnqs_train.monitoring.learning import Gain, is_measured, measure
from fnqs_train.monitoring.metrics import MetricsRecord
from fnqs_train.monitoring.progress import TrainingProgress
from fnqs_train.monitoring.step_averages import StepAverages
from fnqs_train.programs.ahead import Ahead
from fnqs_train.programs.memory import StepPrograms
from fnqs_train.stability.runaway import Guard
from fnqs_train.step import Learned, StepReport, make_optimizer, make_step
from fnqs_train.training_input import training_input
from fnqs_train.walkers import Population

PATIENCE = 5
"""Steps in a row that may be refused for non-finite numbers before the last checkpoint is restored."""

FEW = 3
"""Configurations of a run-away that are named; more are counted."""


def train(
    config: RunConfig,
    run_folder: Path,
    dataset: Dataset,
    *,
    resume: bool = False,
    params: dict | None = None,
    parent: str = "",
    enough: Callable[[int], bool] | None = None,
) -> dict:
    """Optimise one wave function over the chosen split of a data set.

    Every process of a run calls this with the same arguments. Each keeps its share of the walkers; the rest is the same
    everywhere, and process 0 writes the record.

    Args:
        config: of the run.
        run_folder: for config.toml, checkpoints and metrics.jsonl; made if missing.
        dataset: opened data set.
        resume: go on from the latest checkpoint of the folder.
        params: start from these instead of drawing new ones (fine-tuning).
        parent: what the parameters come from, recorded in every checkpoint.
        enough: asked with the steps done after every line of the record whether the run may end before its last step.

    Returns:
        the final parameters.

    Raises:
        InputError: an empty split, a checkpoint of another model or other data, or numbers that stay
            non-finite.
        Stopped: after a signal, with everything saved.
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
        weights=mixture_weights(dataset, indices, phases=config.data.phase_weights, densities=config.data.r_s_weights),
    )

    # ---- Devices, model and optimiser
    mesh = make_mesh(sampling.walkers_per_configuration)
    first = jax.process_index() == 0
    wavefunction = WaveFunction(config.model)
    # Without a cool-down the number of steps changes nothing, and a longer run uses the same compiled program.
    optimizer = make_optimizer(config.optimizer, config.steps if config.optimizer.cooldown_steps else 0)
    trained = Trained(config.optimizer.train, config.optimizer.rank)
    equilibrate = make_equilibration(wavefunction, sampling, mesh)
    # Every random number is a function of (seed, step).
    keys = random_keys(mesh, config.seed)

    with (
        Checkpoints(
            run_folder, keep=config.checkpoint.keep, every_nth_kept=config.checkpoint.every_nth_kept
        ) as checkpoints,
        stop_requested() as stop,
    ):
        if params is None:
            init_key = jax.random.fold_in(jax.random.key(config.seed), 2**31)
            example = dataset[int(stream.batch(0).indices[0])].configuration
            params = jax.jit(wavefunction.init)(init_key, make_system(example, config.model))
        # Numpy arrays, because every process has them alike: a step puts them on all devices of all processes.
        own: dict = on_host(params)
        learned = untrained = Learned(own, on_host(optimizer.init(own)))
        population = Population(
            dataset.n_atoms,
            indices,
            sampling.walkers_per_configuration,
            process=jax.process_index(),
            processes=jax.process_count(),
            dtype=_precision(learned.params),
        )
        guard = Guard(len(dataset), learned)
        start, refused, restored_once, window = 0, 0, False, StepAverages()

        # ---- Resume: parameters, optimiser, walkers, what the loop remembers, step, in that order
        if resume:
            restored = checkpoints.restore_latest(learned.params, learned.optimizer)
            if restored is not None:
                stream.check_resume(restored.meta["data_fingerprint"], run_folder)
                population.restore(restored.walkers)
                start = restored.step
                learned = Learned(restored.params, restored.optimizer)
                guard = Guard(len(dataset), on_host(learned), start)
                if "guard" in restored.meta:  # checkpoints of old have none
                    remembered: Any = restored.walkers["guard"]
                    guard.restore(remembered, restored.meta["guard"])
                learned = learned._replace(length=np.float32(guard.length))
                refused, restored_once = restored.meta["refused"], restored.meta["restored_once"]
                window = StepAverages(restored.meta["window"])

        learned, untrained = place_same(mesh, learned), place_same(mesh, untrained)
        gain: Gain | None = None

        def save(step: int, report: StepReport) -> None:
            remembered, guard_meta = guard.state()
            meta = {
                "data_fingerprint": stream.fingerprint,
                "energy_per_atom": _mean_energy(report),
                "parent": parent,
                "visited": population.visited,
                "configurations": len(indices),
                "refused": refused,
                "restored_once": restored_once,
                "window": window.state(),
                "guard": guard_meta,
            }
            checkpoints.save(step, learned.params, learned.optimizer, population.state() | {"guard": remembered}, meta)

        with (
            MetricsRecord(
                run_folder,
                resume_step=start if resume else None,
                wandb=config.log.wandb,
                name=config.name,
                config=to_table(config),
            )
            if first
            else nullcontext() as record,
            TrainingProgress(config.steps, first=start, quiet=not first, stream=lasting(sys.stdout)) as progress,
            training_input(
                stream,
                PreparedSystems(config.model, config.memory.prepared_bytes),
                mesh,
                start=start,
                stop=config.steps,
            ) as batches,
            Ahead() as ahead,
        ):
            if first:
                save_config(config, run_folder)  # only now is it sure that the folder is this run's
            programs = StepPrograms(
                lambda chunks: make_step(
                    wavefunction,
                    optimizer,
                    sampling,
                    config.optimizer.clip_width,
                    chunks,
                    mesh,
                    trained,
                    config.optimizer.weighting,
                ),
                lambda number: choose_chunks(number, config.model, config.memory),
                progress.message,
            )
            if mesh is None and start == 0:
                shapes = (learned, population, keys(0)[0])
                ahead.compile_first(stream, config.steps, config.model, equilibrate, programs, *shapes)
            began = time.monotonic()
            ended = False
            for step in range(start, config.steps):
                # ---- Input: configurations of one N with their walkers
                began_step = time.monotonic()
                if step == start:
                    progress.doing("integrals of the first configurations")
                batch, systems = next(batches)
                kind = (batch.number, batch.twisted, len(batch.indices))
                waited = time.monotonic() - began_step
                key, equilibration_key = keys(step)
                walkers, widths, fresh = population.take(batch.number, batch.indices)
                stale = population.ages(batch.number, batch.indices, step) > sampling.stale_after
                stale |= guard.distrusts(population.last_visits(batch.number, batch.indices))
                walkers, widths = place_walkers(mesh, walkers), place_same(mesh, widths)

                # ---- New and stale configurations equilibrate before they count, off the gradient path
                unsettled: list[str] = []
                if fresh.any() or stale.any():
                    progress.program("equilibration", *kind)
                    ahead.wait(("equilibration", *kind))
                    settled = equilibrate(learned.params, systems, walkers, widths, fresh, stale, equilibration_key)
                    # Two programs with collectives must not be on their way together.
                    walkers, widths, _, reached = jax.block_until_ready(settled)
                    unsettled = [dataset.identifiers[i] for i in batch.indices[~np.asarray(reached)]]

                # ---- Step
                progress.program("training", *kind)
                if ahead.busy:
                    progress.slowed()
                ahead.wait(("training", *kind))
                learned, walkers, widths, report = programs.take(
                    batch.number, batch.twisted, learned, systems, walkers, widths, key
                )
                population.put(
                    batch.number,
                    batch.indices,
                    fetch_walkers(walkers),
                    np.asarray(widths),
                    step,
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
                    like = on_host((learned.params, learned.optimizer))
                    restored = None if restored_once else checkpoints.restore_latest(*like)
                    if restored is None:
                        raise InputError(
                            f"step {step + 1}: the numbers stay non-finite ({', '.join(lost) or 'solve'}); "
                            f"lower optimizer.learning_rate or raise optimizer.damping, then start again"
                        )
                    learned = place_same(mesh, Learned(restored.params, restored.optimizer))
                    refused, restored_once = 0, True
                    progress.message(f"parameters of step {restored.step} restored")

                # ---- Run-aways: noticed over several steps, whose parameters are given up
                done, taken_back = step + 1, ""
                ran = guard.watch(kind, batch.indices, report)
                if ran is not None:
                    names = [dataset.identifiers[i] for i in batch.indices[ran]]
                    where = ", ".join(names) if len(names) <= FEW else f"{len(names)} configurations"
                    taken_back = f"step {done}: run-away at {where}; back to the parameters of step {guard.kept_step}"
                    learned = place_same(mesh, guard.go_back(done))
                    progress.message(f"{taken_back}, steps {guard.length:.2g} times as long from here on")
                elif report.taken:
                    guard.keep(done, learned)
                    if guard.length != float(learned.length):
                        learned = learned._replace(length=place_same(mesh, np.float32(guard.length)))

                # ---- Learning: now and then the same configurations once more with the parameters of the start
                seconds, measured = time.monotonic() - began_step, None
                if is_measured(done):
                    progress.program("equilibration", *kind)
                    all_, none = np.ones(len(batch.indices), bool), np.zeros(len(batch.indices), bool)
                    settled = equilibrate(untrained.params, systems, walkers, widths, all_, none, equilibration_key)
                    before, before_widths, *_ = jax.block_until_ready(settled)
                    *_, reference = programs.take(
                        batch.number, batch.twisted, untrained, systems, before, before_widths, key
                    )
                    measured = measure(done, report, reference, batch.number, sampling.walkers_per_configuration)
                    gain = measured or gain

                # ---- Record and checkpoint
                window.add(report, lost, seconds, waited, measured, unsettled, taken_back)
                progress.update(
                    done,
                    gain,
                    window.variance,
                    float(np.mean(report.acceptance)),
                    time.monotonic() - began_step,
                )
                if done % config.log.every_steps == 0 or done == config.steps:
                    if record is not None:
                        values = {
                            "number": batch.number,
                            "update_norm": report.update_norm,
                            "fallback": bool(report.fallback),
                            "step_length": guard.length,
                            "visited": population.visited,
                            "elapsed_seconds": time.monotonic() - began,
                        }
                        record.write(done, window.row() | values)
                    window = StepAverages()
                    ended = enough is not None and enough(done)
                stopping = stop(done)
                if done % config.checkpoint.every_steps == 0 or done == config.steps or stopping or ended:
                    save(done, report)
                checkpoints.check()
                if stopping:
                    checkpoints.wait()
                    progress.message(f"stopped at step {done} as asked, with everything saved")
                    raise Stopped
                if ended:
                    break
    return jax.tree.map(jnp.asarray, on_host(learned.params))


def on_host(tree):
    """Copy arrays that are the same on all devices to numpy."""
    return jax.tree.map(np.asarray, tree)


def _precision(params: dict) -> type:
    """Type of the walkers: that of the parameters, if all have float64."""
    return np.float64 if all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(params)) else np.float32


def _mean_energy(report: StepReport) -> float | None:
    """E/N (Ha) over the configurations with finite numbers."""
    return float(np.mean(report.energy[report.finite])) if report.finite.any() else None
