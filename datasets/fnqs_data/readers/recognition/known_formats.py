"""Which formats are read and which are not, each with its reason; README.md of this folder's package repeats it.

A reader that drops what changes the structure, or gives a number another meaning, is worse than none. So a format
is read only where we know what ASE's reader makes of it, or have a reader of our own; every other one is refused
in one sentence, and the user converts the file with the program that wrote it, which knows what it means.
"""

from __future__ import annotations

READ = {
    "extxyz": "extended XYZ, plain or compressed: structure, all labels",
    "i-pi": "XYZ of i-PI, cell in the comment: structure",
    "traj": "ASE trajectory: structure, all labels",
    "qmc-hamm": "HDF5 of QMC-HAMM, both layouts: structure, all labels",
    "vasp": "POSCAR, CONTCAR: structure",
    "vasp-xdatcar": "XDATCAR: structures",
    "vasp-out": "OUTCAR: structures, forces, stress; the energy, relative to atoms, is not read",
    "vasp-xml": "vasprun.xml: structures, forces, stress; the energy is not read",
    "cif": "CIF: structure, symmetry applied",
    "res": "SHELX .res of AIRSS: structures, pressure; the enthalpy is no energy and not read",
    "xsf": "XCrySDen: structures; forces of unknown unit are not read",
    "cube": "Gaussian cube: structure",
    "gen": "DFTB+ gen: structure",
    "espresso-in": "Quantum ESPRESSO input: structure",
    "espresso-out": "Quantum ESPRESSO output: structures, energy, forces, stress",
    "aims": "FHI-aims geometry: structure",
    "lammps-data": "LAMMPS data file: structure, isotopes by mass",
    "lammps-dump-text": "LAMMPS text dump: structures, forces in metal units",
    "siesta-xv": "SIESTA .XV: structure",
}
"""Formats that are read, and what of each."""

_DATA_BASE = "a data base"
_BINARY = "a binary file without checks"
_NO_CELL = "whose reader knows no cell"
_UNCHECKED = "of whose reader we do not know what it drops"
_PARTS = "whose reader leaves out parts of the input that change the structure"

REFUSED = {
    "db": _DATA_BASE,
    "json": _DATA_BASE,
    "mysql": _DATA_BASE,
    "postgresql": _DATA_BASE,
    "nomad-json": "an archive of many quantities",
    "bundletrajectory": "a folder whose parts may be pickled",
    "castep-cell": "whose reader starts the program CASTEP",
    "gpw": _BINARY,
    "lammps-dump-binary": _BINARY,
    "cp2k-dcd": _BINARY,
    "netcdftrajectory": _BINARY,
    "abinit-gsr": _BINARY,
    "castep-castep": _UNCHECKED,
    "castep-geom": "whose reader drops a last frame without an empty line and knows no total energy",
    "castep-md": "whose reader drops a last frame without an empty line and knows no total energy",
    "castep-phonon": "modes of vibration",
    "dlp4": "whose reader gives forces in another unit",
    "dlp-history": "whose reader gives forces in another unit",
    "gromacs": "coordinates to 0.01 Å only",
    "gromos": "whose reader guesses elements from names of atoms",
    "proteindatabank": "whose reader does not apply the symmetry of its cell, coordinates to 0.001 Å only",
    "struct": "whose reader does not apply all symmetry",
    "crystal": "whose reader does not apply symmetry and takes long cells for open ones",
    "rmc6f": _PARTS,
    "cfg": "whose reader leaves out its strain of the cell",
    "abinit-in": _PARTS,
    "elk": _PARTS,
    "octopus-in": _PARTS,
    "onetep-in": _PARTS,
    "nwchem-in": _PARTS,
    "cp2k-restart": _PARTS,
    "dftb": _PARTS,
    "jsv": _PARTS,
    "magres": _UNCHECKED,
    "abinit-out": _UNCHECKED,
    "aims-output": _UNCHECKED,
    "cjson": _UNCHECKED,
    "dacapo-text": _UNCHECKED,
    "dmol-arc": _UNCHECKED,
    "dmol-car": _UNCHECKED,
    "dmol-incoor": _UNCHECKED,
    "eon": _UNCHECKED,
    "gpaw-out": _UNCHECKED,
    "gpumd": _UNCHECKED,
    "mustem": _UNCHECKED,
    "nwchem-out": _UNCHECKED,
    "onetep-out": _UNCHECKED,
    "prismatic": _UNCHECKED,
    "qbox": _UNCHECKED,
    "runnerdata": _UNCHECKED,
    "struct_out": _UNCHECKED,
    "sys": _UNCHECKED,
    "v-sim": _UNCHECKED,
    "wout": _UNCHECKED,
    "xsd": _UNCHECKED,
    "xtd": _UNCHECKED,
    "acemolecule-input": _NO_CELL,
    "acemolecule-out": _NO_CELL,
    "cmdft": _NO_CELL,
    "gamess-us-out": _NO_CELL,
    "gamess-us-punch": _NO_CELL,
    "gaussian-in": _NO_CELL,
    "gaussian-out": _NO_CELL,
    "mol": _NO_CELL,
    "orca-output": _NO_CELL,
    "sdf": _NO_CELL,
    "turbomole": _NO_CELL,
    "turbomole-gradient": _NO_CELL,
    "xyz": "plain XYZ without a cell; give extxyz",
}
"""Formats that ASE reads and we do not, each with the clause that says why.

Pickled files (old .traj, .pckl) have no reader here at all, and plug-ins that bring formats to ASE are not run.
"""
