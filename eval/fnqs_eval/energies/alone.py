"""Equilibrated walkers of one configuration by itself, on the first device."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from fnqs.sampling.equilibration import Verdict, longest
from fnqs.system import System, make_system, stack_systems
from fnqs.wavefunction import Context, WaveFunction
from fnqs_data.store.record import Record
from fnqs_eval.energies.energy import configuration_seed, is_twisted
from fnqs_eval.energies.equilibrate import equilibrate
from fnqs_eval.energies.sampling_progress import SamplingProgress
from fnqs_eval.energies.slots import Slots, make_sampling, make_start
from fnqs_train.chunks import choose_chunks

ACCEPTANCE = 0.5
"""To which the widths of the moves are tuned."""


@dataclass(frozen=True)
class Equilibrated:
    """A configuration with walkers of |psi|^2; leaves have a leading axis of length 1, as one slot has.

    Attributes:
        systems, contexts: what psi and its local energy need.
        walkers: (1, n, N, 3) bohr.
        widths: (1,) of the moves, bohr.
        seeds: (1,) of the configuration, uint32.
        parts: (1,) number of the next call of a sampling program.
        verdict: on the equilibration.
    """

    systems: System
    contexts: Context
    walkers: np.ndarray
    widths: np.ndarray
    seeds: np.ndarray
    parts: np.ndarray
    verdict: Verdict


def equilibrate_alone(
    wavefunction: WaveFunction,
    params: dict,
    record: Record,
    *,
    walkers: int,
    least_sweeps: int,
    seed: int,
    progress: SamplingProgress,
) -> Equilibrated:
    """Start walkers of one configuration and move them until they have settled, as `fnqs-evaluate energies` does.

    Args:
        wavefunction: the model.
        params: its parameters.
        record: the configuration.
        walkers: how many.
        least_sweeps: moves at least.
        seed: of the evaluation.
        progress: told what is being done.
    """
    twisted = is_twisted(record)
    mesh = Mesh(np.array(jax.local_devices()[:1]), ("slots",))
    systems = stack_systems([make_system(record.configuration, wavefunction.config, force_complex=twisted)])
    seeds = np.array([configuration_seed(record, seed)], np.uint32)
    progress.program("equilibration", record.n_atoms, twisted)
    chunk = choose_chunks(record.n_atoms, wavefunction.config).energy
    programs = (make_start(wavefunction, walkers, 1, mesh), make_sampling(wavefunction, chunk, 1, mesh))
    limits = [(least_sweeps, longest(record.n_atoms, record.wigner_seitz_radius))]
    found, [verdict] = equilibrate(programs, params, systems, seeds, Slots(1, 1, 1), limits, ACCEPTANCE)
    contexts, positions, widths, parts = found
    return Equilibrated(systems, contexts, positions, widths, seeds, parts, verdict)
