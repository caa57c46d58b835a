"""Projection of configurations one after the other: sample psi, project at every time step, measure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fnqs.errors import InputError
from fnqs.sampling.equilibration import Verdict
from fnqs.system import System
from fnqs.wavefunction import Context, WaveFunction
from fnqs_data.store.record import Record
from fnqs_eval.dmc.estimate import ProjectedEnergy, projected_energy
from fnqs_eval.dmc.projector import BLOCK, make_block
from fnqs_eval.dmc.result import DmcResult
from fnqs_eval.energies.alone import equilibrate_alone
from fnqs_eval.energies.energy import configuration_seed
from fnqs_eval.energies.journal import Journal
from fnqs_eval.energies.sampling_progress import SamplingProgress
from fnqs_eval.energies.slots import make_measure
from fnqs_eval.energies.statistics import Estimate, mended, reblocked_error
from fnqs_train.chunks import choose_chunks

VMC_PARTS = 8
"""Groups of local energies taken of psi itself at most."""

SWEEPS_BETWEEN = 10
"""Moves between two local energies of psi itself."""

DMC = 2**31
"""Random numbers of projections: the count of parts that no sampling of psi itself reaches."""

FEW_ACCEPTED, FEW_DRAWN, MANY_LIMITED, FEW_WEIGHTS = 0.9, 0.5, 0.01, 0.2
"""Shares below (for the third: above) which a result gets a remark."""


@dataclass(frozen=True)
class DmcSettings:
    """How long to project.

    Attributes:
        time_steps: tau, 1/Ha.
        walkers: of a configuration.
        target_error: standard error of E/N (Ha) at which a projection stops.
        max_blocks: blocks of BLOCK time steps that count, at most.
        equilibration_sweeps: moves before the first energy of psi itself, at least.
        projection: imaginary time before anything counts, 1/Ha.
        window: imaginary time over which mean weights are carried, 1/Ha.
        seed: of walkers and moves.
    """

    time_steps: tuple[float, ...]
    walkers: int = 256
    target_error: float = 5e-4
    max_blocks: int = 400
    equilibration_sweeps: int = 0
    projection: float = 10.0
    window: float = 10.0
    seed: int = 0


@dataclass(frozen=True)
class Start:
    """A configuration with walkers of |psi|^2.

    Attributes:
        record: the configuration.
        system, context: what its local energy needs.
        walkers: (n, N, 3) bohr.
        variational: E/N of psi itself, Ha.
        settled: on the equilibration of the walkers.
    """

    record: Record
    system: System
    context: Context
    walkers: np.ndarray
    variational: Estimate
    settled: Verdict


def project_with_journal(
    wavefunction: WaveFunction,
    params: dict,
    records: Sequence[Record],
    settings: DmcSettings,
    journal: Journal,
    announce: Callable[[str], None],
) -> list[DmcResult]:
    """Project what the journal does not hold yet.

    Returns:
        a result for every time step of every record, one record's time steps after the other's.
    """
    places = [(record, tau) for record in records for tau in settings.time_steps]
    waiting = [place for place in range(len(places)) if place not in journal.results]
    if len(waiting) < len(places):
        announce(f"{len(places) - len(waiting)} of {len(places)} energies are in {journal.path} already")
    numbers = [places[place][0].n_atoms for place in waiting]
    progress = SamplingProgress(announce, numbers, before=len(places) - len(waiting))
    start: Start | None = None
    for place in waiting:
        record, time_step = places[place]
        if start is None or start.record is not record:
            start = sample(wavefunction, params, record, settings, progress)
        journal.append({place: project(wavefunction, params, start, time_step, settings, progress)})
        progress.finished([record.n_atoms])
    return [journal.results[place] for place in range(len(places))]


def sample(
    wavefunction: WaveFunction, params: dict, record: Record, settings: DmcSettings, progress: SamplingProgress
) -> Start:
    """Sample |psi|^2 of one configuration as `fnqs-evaluate energies` does, on the first device.

    Raises:
        InputError: no walker has a finite local energy.
    """
    start = equilibrate_alone(
        wavefunction,
        params,
        record,
        walkers=settings.walkers,
        least_sweeps=settings.equilibration_sweeps,
        seed=settings.seed,
        progress=progress,
    )
    systems, contexts, walkers, counted = start.systems, start.contexts, start.walkers, start.parts
    mesh, one = Mesh(np.array(jax.local_devices()[:1]), ("slots",)), np.ones(1, np.int32)
    chunk = choose_chunks(record.n_atoms, wavefunction.config).energy
    measure = make_measure(wavefunction, SWEEPS_BETWEEN, chunk, 1, mesh)
    parts: list[np.ndarray] = []
    for _ in range(VMC_PARTS):
        walkers, energies, *_ = measure(params, contexts, systems, walkers, start.widths, start.seeds, counted, one)
        counted = counted + np.uint32(1)
        parts.append(np.real(np.asarray(energies)[:, 0]) / record.n_atoms)
        series = mended(np.concatenate(parts)).energies
        if series.size == 0:
            raise InputError(
                f"{record.identifier}: no walker has a finite local energy, so there is nothing to project"
            )
        estimate = reblocked_error(series)
        if estimate.converged and estimate.error < settings.target_error:
            break
    system, context = (jax.tree.map(lambda leaf: leaf[0], stacked) for stacked in (systems, contexts))
    return Start(record, system, context, np.asarray(walkers)[0], estimate, start.verdict)


def project(
    wavefunction: WaveFunction,
    params: dict,
    start: Start,
    time_step: float,
    settings: DmcSettings,
    progress: SamplingProgress,
    chunk: int | None = None,
) -> DmcResult:
    """Project one configuration at one time step.

    E_T begins as the energy of psi itself, follows the energy until the projection counts, and stays then.

    Args:
        wavefunction: the model.
        params: its parameters.
        start: the configuration and its walkers.
        time_step: tau, 1/Ha.
        settings: how long.
        progress: told what is being done.
        chunk: walkers differentiated together; None leaves it to the program.

    Raises:
        InputError: no walker is left whose energy is finite.
    """
    record = start.record
    n_electrons = record.n_atoms
    block = make_block(wavefunction, chunk or choose_chunks(n_electrons, wavefunction.config).energy)
    seed = jax.random.fold_in(jax.random.key(np.uint32(configuration_seed(record, settings.seed))), np.uint32(DMC))
    key = jax.random.fold_in(seed, np.float32(time_step).view(np.uint32))
    before = math.ceil(settings.projection / (time_step * BLOCK))
    window = round(settings.window / time_step)
    kept = "phase" if start.context.pairing.is_complex else "nodes"
    trial, walkers, replaced = start.variational.mean * n_electrons, start.walkers, 0
    history: list[tuple[np.ndarray, ...]] = []
    found: ProjectedEnergy | None = None
    for count in range(before + settings.max_blocks):
        began, compiles = time.monotonic(), progress.program("projection", n_electrons, kept)
        block_key = jax.random.fold_in(key, np.uint32(count))
        walkers, moved, lost = block(
            params, start.context, start.system, walkers, jnp.asarray(trial, jnp.float64), block_key, time_step
        )
        replaced += int(lost)
        series = (moved.energy, moved.log_weight, moved.acceptance, moved.spread, moved.limited)
        history.append(tuple(np.asarray(values, np.float64) for values in series))
        energies, logs = (np.concatenate([part[which] for part in history]) for which in (0, 1))
        if not (np.all(np.isfinite(energies)) and np.all(np.isfinite(logs))):
            raise InputError(f"{record.identifier}, time step {time_step:g}: no walker with a finite energy is left")
        share, error = (count + 1) / (before + settings.max_blocks), math.nan
        if count < before:
            trial = float(np.mean(energies[len(energies) // 2 :]))
        else:
            found = projected_energy(energies / n_electrons, logs, before * BLOCK, window)
            error = found.estimate.error
            share = max(share, min(1.0, (settings.target_error / error) ** 2) if error > 0 else share)
        progress.part(n_electrons, [share], error, None if compiles else time.monotonic() - began)
        if found is not None and found.estimate.converged and error <= settings.target_error:
            break
    assert found is not None
    shares = [float(np.mean(np.concatenate([part[which] for part in history[before:]]))) for which in (2, 3, 4)]
    own = _result(start, time_step, kept, found, shares, BLOCK * (len(history) - before))
    return partial(DmcResult, **own)(flags=_flags(start, own, found, settings, replaced))


def _result(start: Start, time_step: float, kept: str, found: ProjectedEnergy, shares: list[float], steps: int) -> dict:
    record, estimate, variational = start.record, found.estimate, start.variational
    x, y, z = (float(turn) for turn in np.asarray(record.configuration.twist))
    acceptance, spread, limited = shares
    return {
        "identifier": record.identifier,
        "number": record.n_atoms,
        "density_parameter": record.wigner_seitz_radius,
        "twist": (x, y, z),
        "kept": kept,
        "time_step": time_step,
        "energy_per_atom": estimate.mean,
        "error_per_atom": estimate.error,
        "plain_energy_per_atom": found.plain,
        "vmc_energy_per_atom": variational.mean,
        "vmc_error_per_atom": variational.error,
        "gain_per_atom": variational.mean - estimate.mean,
        "gain_error_per_atom": math.hypot(variational.error, estimate.error),
        "acceptance": acceptance,
        "spread": spread,
        "limited": limited,
        "steps": steps,
    }


def _flags(start: Start, own: dict, found: ProjectedEnergy, settings: DmcSettings, replaced: int) -> list[str]:
    flags, estimate = [], found.estimate
    if not start.settled.settled:
        flags.append(f"the walkers were not equilibrated after {start.settled.sweeps} sweeps")
    if not start.variational.converged:
        flags.append("the sampling of psi itself is too short, so the error bar of VMC is a lower bound")
    if not estimate.converged:
        flags.append("the projection is too short for its correlations, so the error bar is a lower bound")
    if estimate.error > settings.target_error:
        flags.append(f"stopped before the error bar reached {settings.target_error * 1e3:g} mHa per atom")
    if own["acceptance"] < FEW_ACCEPTED:
        flags.append(f"acceptance {own['acceptance']:.3f}: the time step is too long")
    if own["spread"] < FEW_DRAWN:
        flags.append(f"only {own['spread']:.0%} of the walkers are drawn again: a few carry all the weight")
    if own["limited"] > MANY_LIMITED:
        flags.append(f"the weights of {own['limited']:.1%} of the walkers were cut off: take a shorter time step")
    if found.weight_share < FEW_WEIGHTS:
        flags.append("the carried weights differ much: take more walkers or a shorter --window")
    if own["gain_per_atom"] < -3 * own["gain_error_per_atom"]:
        flags.append("DMC lies above VMC: a longer --equilibration or a shorter time step may be needed")
    if replaced:
        flags.append(f"{replaced} walkers had an energy that is not finite and were replaced")
    return flags
