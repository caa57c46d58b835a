"""Options that several commands have: which trained model, and which configurations."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    """Add the trained model, which `resolve_checkpoint` finds."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=Path,
        help="run folder, a step in it, or the name of a model that comes with fnqs: foundation",
    )


def add_configuration_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options that choose configurations from a file, which `read_selected` reads."""
    parser.add_argument(
        "--configurations",
        metavar="FILE",
        type=Path,
        required=required,
        help="anything ASE reads with a cell (extxyz, POSCAR, .traj ...; angstrom), QMC-HAMM HDF5, "
        "or a data set folder",
    )
    parser.add_argument(
        "--frames",
        metavar="A:B",
        help="frames of the file to take, as in Python: 17 is one, 0:10 the first ten (default: all)",
    )
