"""Sampling of one configuration: everything measured at the same walkers, until the energy is known well enough."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnqs.ewald import shortest_waves
from fnqs.observables.coulomb import proton_derivatives
from fnqs.observables.derivatives import largest_sphere
from fnqs.periodic.cell import reciprocal_vectors
from fnqs.periodic.smooth_distance import reduced_cell
from fnqs.sampling.equilibration import Verdict
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.record import Record
from fnqs_eval.energies.alone import equilibrate_alone
from fnqs_eval.energies.energy import is_twisted
from fnqs_eval.energies.sampling_progress import SamplingProgress
from fnqs_eval.energies.statistics import Estimate, reblocked_error
from fnqs_eval.observables.deformations import Derivatives, deformed_contexts
from fnqs_eval.observables.program import TOGETHER, make_pass, make_reference_phases
from fnqs_train.chunks import choose_chunks

BINS = 48
"""Intervals of distance of the pair correlation functions."""

WAVES_PER_ELECTRON = 8
"""Density waves of the structure factor, half of them all, and momenta: about up to 2.4 Fermi wave numbers."""

VOXELS = 1000
"""Of the electron density, a proton: their number depends on N alone, so that one program serves all densities."""

OBSERVED = 2**30
"""Of the random numbers of a configuration: those of measurements, beside those of its equilibration."""


@dataclass(frozen=True)
class ObservableSettings:
    """How long to sample, and what.

    Attributes:
        walkers: of each configuration.
        equilibration_sweeps: moves before anything counts, at least.
        sweeps_between: all-electron moves between two measurements of a walker.
        target_error: standard error of E/N (Ha) at which sampling stops.
        max_measurements: of a walker, after which it stops anyway.
        derivatives: of log psi: "none" leaves the virial pressure, "stress" adds stress, "all" adds forces.
        correlations: whether to measure pair correlations, structure factors, momenta and the density.
        seed: of walkers and moves.
    """

    walkers: int = 64
    equilibration_sweeps: int = 0
    sweeps_between: int = 10
    target_error: float = 1e-3
    max_measurements: int = 256
    derivatives: Derivatives = "all"
    correlations: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Samples:
    """What was measured of one configuration; N protons, T measurements of n walkers.

    Attributes:
        record: the configuration.
        series: (T, n, ...) by name, as `make_pass` describes them, float64.
        sums: (n, ...) by name, sums over the measurements; of the voxels (2, G).
        edges: (B + 1,) of the distances, bohr.
        waves: (G, 3) of the density, 1/bohr.
        momenta: (K, 3) 1/bohr.
        cell: (3, 3) of the voxels, bohr.
        shape: of the voxels.
        protons: energy () of the protons in Ha and its derivatives (N, 3) and (3, 3).
        acceptance: fraction of accepted moves.
        verdict: on the equilibration.
        lost: samples that were not finite and were left out.
    """

    record: Record
    series: dict[str, np.ndarray]
    sums: dict[str, np.ndarray]
    edges: np.ndarray
    waves: np.ndarray
    momenta: np.ndarray
    cell: np.ndarray
    shape: tuple[int, int, int]
    protons: tuple[np.ndarray, np.ndarray, np.ndarray]
    acceptance: float
    verdict: Verdict
    lost: int

    @property
    def count(self) -> int:
        """Measurements T."""
        return len(self.series["kinetic"])


def sample(
    wavefunction: WaveFunction, params: dict, record: Record, settings: ObservableSettings, progress: SamplingProgress
) -> Samples:
    """Sample one configuration on the first device.

    Args:
        wavefunction: the model.
        params: its parameters.
        record: the configuration with its twist.
        settings: how long, and what.
        progress: told what is being done.
    """
    number = record.n_atoms
    start = equilibrate_alone(
        wavefunction,
        params,
        record,
        walkers=settings.walkers,
        least_sweeps=settings.equilibration_sweeps,
        seed=settings.seed,
        progress=progress,
    )
    both = (start.systems, start.contexts)
    system, context = (jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), part) for part in both)
    walkers, width = jnp.asarray(start.walkers[0]), jnp.asarray(start.widths[0])
    if settings.derivatives != "none":
        progress.doing(f"integrals of the deformed cells of {record.identifier}")
    encode = jax.jit(jax.vmap(wavefunction.encode, (None, 0)))
    deformation = deformed_contexts(encode, params, record.configuration, wavefunction.config, settings.derivatives)
    deformed = None
    if deformation.contexts is not None:
        parts = (deformation.contexts, deformation.transforms, deformation.steps)
        deformed = (*parts, np.asarray(make_reference_phases(wavefunction)(params, *parts, walkers)))
    cell, twist = reduced_cell(np.asarray(record.configuration.cell)), np.asarray(context.wave_vector, np.float64)
    vectors = shortest_waves(cell, WAVES_PER_ELECTRON * number)[0] @ reciprocal_vectors(cell)
    momenta = np.concatenate([np.zeros((1, 3)), vectors, -vectors]) + twist
    edges = np.linspace(0.0, float(largest_sphere(system.ewald)), BINS + 1)
    side = math.ceil((VOXELS * number) ** (1 / 3))
    shape = (side, side, side)
    chunk = choose_chunks(number, wavefunction.config).energy
    run = make_pass(wavefunction, chunk, settings.sweeps_between, shape, settings.correlations)
    key = jax.random.fold_in(jax.random.key(start.seeds[0]), np.uint32(OBSERVED))
    lists = (edges, vectors, momenta, cell)
    energy_of_protons = proton_derivatives(system.ewald)
    gathered: list[dict[str, np.ndarray]] = []
    sums: dict[str, Any] = {}
    acceptances, estimate, lost = [], None, 0
    for part in range(max(1, settings.max_measurements // TOGETHER)):
        began, compiles = time.monotonic(), progress.program("observables", number, is_twisted(record))
        now = jax.random.fold_in(key, part)
        walkers, accepted, series, new = run(params, context, system, deformed, lists, walkers, width, now)
        acceptances.append(float(accepted))
        gathered.append({name: np.asarray(values, np.float64) for name, values in series.items()})
        new = {name: np.asarray(values, np.float64) for name, values in new.items()}
        sums = {name: values + sums.get(name, 0.0) for name, values in new.items()}
        joined = {name: np.concatenate([one[name] for one in gathered]) for name in gathered[0]}
        finite, lost = _finite(joined)
        estimate = _energy_estimate(finite, float(energy_of_protons[0]), number)
        share = (part + 1) * TOGETHER / settings.max_measurements
        reached = (settings.target_error / estimate.error) ** 2 if estimate.error > 0 else 1.0
        progress.part(
            number, [min(1.0, max(share, reached))], estimate.error, None if compiles else time.monotonic() - began
        )
        if estimate.converged and estimate.error <= settings.target_error:
            break
    return Samples(
        record=record,
        series=finite,
        sums=sums,
        edges=edges,
        waves=vectors,
        momenta=momenta,
        cell=cell,
        shape=shape,
        protons=energy_of_protons,
        acceptance=float(np.mean(acceptances)),
        verdict=start.verdict,
        lost=lost,
    )


def _energy_estimate(series: dict[str, np.ndarray], protons: float, number: int) -> Estimate:
    energies = series["kinetic"] + series["electron_electron"] + series["electron_proton"] + protons
    if not energies.size:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0.0, 1, converged=True)
    return reblocked_error(energies / number)


def _finite(series: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
    """Put the mean of the walker's others in place of samples of which some part is not finite; drop bad walkers.

    Returns:
        the series, and how many samples of the walkers kept were replaced.
    """
    whole = [np.all(np.isfinite(values), axis=tuple(range(2, values.ndim))) for values in series.values()]
    valid = np.all(whole, axis=0)
    kept = np.mean(valid, axis=0) >= 0.5
    valid = valid[:, kept]
    counts = np.maximum(valid.sum(axis=0), 1)
    mended = {}
    for name, values in series.items():
        values, mask = values[:, kept], valid.reshape(*valid.shape, *[1] * (values.ndim - 2))
        mean = np.sum(np.where(mask, values, 0), axis=0) / counts.reshape(-1, *[1] * (values.ndim - 2))
        mended[name] = np.where(mask, values, mean)
    return mended, int(np.sum(~valid))
