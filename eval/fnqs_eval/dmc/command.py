"""The command fnqs-evaluate dmc."""

from __future__ import annotations

import argparse
import sys

from fnqs.cli.command_line import positive_float, positive_int
from fnqs.errors import InputError
from fnqs.system import check_spin
from fnqs.wavefunction import WaveFunction
from fnqs_eval.dmc.project import DmcSettings, project_with_journal
from fnqs_eval.dmc.projector import BLOCK
from fnqs_eval.dmc.result import print_table, result_from_json, with_zero, write_csv, write_json
from fnqs_eval.energies.sampling_command import (
    add_sampling_options,
    open_journal,
    provenance_of,
    read_request,
)


def add_dmc(commands) -> None:
    """Add the command to the sub-parsers of fnqs-evaluate."""
    parser = commands.add_parser(
        "dmc",
        help="diffusion Monte Carlo: the lowest energy with the nodes or the phase of the wave function",
        description="Project the lowest state that has the nodes (psi real) or the phase (psi complex) of the trained\n"
        "wave function, which is only the guide: what its Jastrow factor lacks no longer matters. For each\n"
        "configuration and time step: E/N with a reblocked error bar, the same without the carried weights (the\n"
        "difference shows the bias of a small population), E/N of the wave function itself on the walkers that\n"
        "the projection starts from (VMC), and how much lower DMC is; with two time steps or more, E/N at time\n"
        "step 0 from a straight line. With fixed nodes that is an upper bound, at any other time step it is none.\n"
        "All electrons of a walker move at once; an acceptance below 0.9 means that the time step is too long.\n"
        "The twist is that of the file. One device is used. A run that was killed goes on with the same command.\n\n"
        "  fnqs-evaluate dmc runs/quickstart --configurations my.extxyz --frames 0 --time-steps 0.02,0.01\n"
        "  fnqs-evaluate dmc foundation --configurations my.extxyz --time-steps 0.04,0.02,0.01 --error 2e-4",
    )
    add_sampling_options(
        parser,
        prefix="dmc",
        walkers=256,
        error=5e-4,
        stops="at which each time step stops by itself (default 0.0005)",
        also="a CSV",
    )
    parser.add_argument(
        "--time-steps",
        metavar="TAU,...",
        default="0.02,0.01",
        help="1/Ha; two or more are extrapolated to 0 (default 0.02,0.01)",
    )
    parser.add_argument(
        "--blocks",
        metavar="MAX",
        type=positive_int,
        default=400,
        help=f"blocks of {BLOCK} time steps after which it stops in any case (default 400)",
    )
    parser.add_argument(
        "--projection",
        metavar="TIME",
        type=positive_float,
        default=10.0,
        help="imaginary time in 1/Ha that is projected before energies count (default 10: 500 steps of 0.02)",
    )
    parser.add_argument(
        "--window",
        metavar="TIME",
        type=positive_float,
        default=10.0,
        help="imaginary time in 1/Ha over which energies carry the mean weights of earlier steps (default 10): longer "
        "takes more of the bias of a small population away and makes more noise",
    )
    parser.set_defaults(run=run_dmc)


def run_dmc(options: argparse.Namespace) -> int:
    """Project what is asked for, print the table and write the files."""
    time_steps = parse_time_steps(options.time_steps)
    checkpoint, config, params, records, output = read_request(options, "dmc", (".csv",))
    settings = DmcSettings(
        time_steps=time_steps,
        walkers=options.walkers,
        target_error=options.error,
        max_blocks=options.blocks,
        equilibration_sweeps=options.equilibration,
        projection=options.projection,
        window=options.window,
        seed=options.seed,
    )
    provenance = provenance_of(checkpoint, config, settings, options.configurations)
    for record in records:
        check_spin(record.configuration, config.model)
    with open_journal(options, output, checkpoint, settings, records, from_json=result_from_json) as journal:
        results = project_with_journal(
            WaveFunction(config.model), params, records, settings, journal, lambda text: print(text, file=sys.stderr)
        )
        rows = with_zero(results, len(time_steps))
        write_json(output, rows, provenance)
        write_csv(output.with_suffix(".csv"), rows)
        journal.remove()
    print_table(rows, f"{options.checkpoint}, step {checkpoint.step}: diffusion Monte Carlo")
    print(f"written: {output}, .csv")
    return 0


def parse_time_steps(text: str) -> tuple[float, ...]:
    """Turn "0.02,0.01" into time steps in 1/Ha.

    Raises:
        InputError: for anything but different numbers above 0 and at most 1.
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < tau <= 1 for tau in found) or len(set(found)) < len(found):
        raise InputError(f"--time-steps {text}: give different numbers above 0 and at most 1, such as 0.02,0.01")
    return found
