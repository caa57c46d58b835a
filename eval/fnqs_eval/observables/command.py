"""The command fnqs-evaluate observables."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import get_args

import numpy as np

from fnqs.errors import InputError
from fnqs_eval.energies.sampling_command import add_sampling_options, output_path
from fnqs_eval.observables.cube import write_density
from fnqs_eval.observables.deformations import Derivatives
from fnqs_eval.observables.run import add_length_options, measured, settings_of
from fnqs_eval.observables.sample import ObservableSettings, Samples
from fnqs_eval.observables.table import print_tables, write_json
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint
from fnqs_train.loading import read_selected


def add_observables(commands) -> None:
    """Add the command to the sub-parsers of fnqs-evaluate."""
    parser = commands.add_parser(
        "observables",
        help="pressure, stress, forces, correlation functions and finite-size corrections",
        description="Measure at the same walkers: kinetic and potential energy by kind of pair, pressure by the\n"
        "virial and as derivative of the energy, the stress tensor, forces on the protons, <S^2>, pair correlation\n"
        "functions, structure factors, the momentum distribution and the electron density, all with error bars.\n"
        "Protons are clamped: their own kinetic pressure is not in it.\n\n"
        "  fnqs-evaluate observables foundation --configurations my.extxyz --frames 0\n"
        "  fnqs-evaluate observables foundation --configurations my.extxyz --derivatives stress --twists 2x2x2\n\n"
        "virial P is (2 T + V) / 3 Omega. It is -dE/dV for an eigenstate, or for a psi that no scaling improves.\n"
        "P = -dE/dV has the covariance of local energy and derivative of log psi by strain in it, which makes\n"
        "pressure, stress and forces derivatives of the variational energy for any psi. The difference between both\n"
        "says how far psi is from optimal. Cost, in evaluations of psi beside the moves and the local energy: 12 for\n"
        "the stress, 6 N more for forces.\n\n"
        "Finite-size corrections (Holzmann et al. 2016) come from the structure factor of the same run and are meant\n"
        "for twist averages; raw energy, each correction and the sum are printed.\n"
        "Stress has ASE's sign, positive under tension. One device is used. A run that was killed goes on with the\n"
        "same command.",
    )
    add_sampling_options(
        parser,
        prefix="observables",
        walkers=64,
        error=1e-3,
        stops="at which sampling stops by itself (default 0.001); with --twists that of the average",
        also="with --cube densities",
    )
    add_length_options(parser)
    parser.add_argument(
        "--derivatives",
        choices=get_args(Derivatives),
        default="all",
        help="none: the virial pressure only; stress: pressure and stress as derivatives of the energy; all: forces "
        "too (default)",
    )
    parser.add_argument(
        "--no-correlations", action="store_true", help="leave out what depends on distance, wave vector and place"
    )
    parser.add_argument(
        "--cube",
        metavar="FOLDER",
        type=Path,
        help="write charge and spin density of every configuration (and twist) here, for ASE and VMD",
    )
    parser.set_defaults(run=run_observables)


def run_observables(options: argparse.Namespace) -> int:
    """Measure what is asked for, print the tables and write the files."""
    settings = ObservableSettings(
        **settings_of(options), derivatives=options.derivatives, correlations=not options.no_correlations
    )
    cubes = options.cube
    if cubes is not None and options.no_correlations:
        raise InputError("--cube needs the density, which --no-correlations leaves out")

    def keep(place: int, samples: Samples, charge: np.ndarray, spin: np.ndarray) -> None:
        if cubes is not None:
            cubes.mkdir(parents=True, exist_ok=True)
            name = f"{place:04d}-{re.sub(r'[^A-Za-z0-9._-]+', '-', samples.record.identifier)}"
            write_density(cubes / f"{name}-charge.cube", samples, charge, "electrons")
            write_density(cubes / f"{name}-spin.cube", samples, spin, "up minus down electrons")

    checkpoint = resolve_checkpoint(options.checkpoint)
    output = output_path(options, checkpoint, "observables", ())
    records = read_selected(options.configurations, options.frames)
    with measured(options, checkpoint, records, settings, output, keep) as run:
        write_json(output, run.rows, run.provenance)
    print_tables(run.rows, f"{options.checkpoint}, step {checkpoint.step}: observables")
    print(f"written: {output}" + (f", {cubes}/*.cube" if cubes is not None else ""))
    return 0
