"""Sound files for fuzz_readers.py: one writer for each layout, and disguises in which they must be read."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import cell_to_cellpar
from ase.io import write

NUMBER, FRAMES, DENSITY = 16, 3, 1.4


def make_frames(rng: np.random.Generator, frames: int = FRAMES) -> list[Atoms]:
    """Hydrogen at r_s = 1.4: a jittered lattice with energies, forces and the QMC-HAMM notes."""
    edge = (4 * np.pi / 3 * NUMBER) ** (1 / 3) * DENSITY * units.Bohr
    places = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1, 2, 3], indexing="ij"), -1).reshape(-1, 3) / [2, 2, 4]
    made = []
    for i in range(frames):
        cell = edge * np.diag([0.8, 0.8, 1 / 0.64]) + rng.normal(scale=0.02, size=(3, 3))
        atoms = Atoms(
            f"H{NUMBER}", scaled_positions=places + rng.normal(scale=0.02, size=(NUMBER, 3)), cell=cell, pbc=True
        )
        energy = -0.53 * NUMBER * units.Hartree + rng.normal()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=rng.normal(size=(NUMBER, 3)))
        atoms.info.update(iconf=i, uuid=f"frame-{i}", fsc_dv_ev=1.5 + i, fsc_dt_ev=0.7)
        made.append(atoms)
    return made


def labels_of(atoms: Atoms) -> dict[str, Any]:
    """Labels of a frame, all of which have some."""
    assert atoms.calc is not None
    return atoms.calc.results


def write_extxyz(path: Path, frames: list[Atoms]) -> None:
    write(path, frames, format="extxyz")


def write_reptation(path: Path, frames: list[Atoms]) -> None:
    """Write the columns and the header of the reptation-QMC set."""
    lines = []
    for atoms in frames:
        lattice = " ".join(repr(float(x)) for x in np.array(atoms.cell).ravel())
        lines += [
            str(len(atoms)),
            f'Lattice="{lattice}" Properties=species:S:1:pos:R:3:initial_magmoms:R:1:forces:R:3 '
            f'energy={float(labels_of(atoms)["energy"])!r} pbc="T T T"',
        ]
        for symbol, x, f in zip(atoms.symbols, atoms.positions, labels_of(atoms)["forces"], strict=True):
            lines.append(f"{symbol:<2}" + "".join(f"{v:16.8f}" for v in (*x, 0.0, *f)))
    path.write_text("\n".join(lines) + "\n")


def write_compressed(path: Path, frames: list[Atoms]) -> None:
    with gzip.GzipFile(path, "wb", mtime=0) as file, tempfile.NamedTemporaryFile(suffix=".xyz") as plain:
        write_extxyz(Path(plain.name), frames)
        file.write(Path(plain.name).read_bytes())


def write_text_layout(path: Path, frames: list[Atoms]) -> None:
    """Write the older QMC-HAMM HDF5 layout."""
    atoms = frames[0].copy()
    atoms.calc = frames[0].calc
    r_s = (3 * atoms.get_volume() / (4 * np.pi * len(atoms))) ** (1 / 3) / units.Bohr
    atoms.info.update(rs=r_s, pressure=150, temperature=2000, phase="liquid", method="NPT")
    with tempfile.NamedTemporaryFile(suffix=".xyz") as plain, h5py.File(path, "w") as file:
        write_extxyz(Path(plain.name), [atoms])
        file["xyz_data"] = Path(plain.name).read_bytes()
        file["gofr_data"] = b"# r  g(r)\n0.1 0.0\n"


def write_array_layout(path: Path, frames: list[Atoms]) -> None:
    """Write the newer QMC-HAMM HDF5 layout."""
    atoms, results = frames[0], labels_of(frames[0])
    with h5py.File(path, "w") as file:
        r_s = (3 * atoms.get_volume() / (4 * np.pi * len(atoms))) ** (1 / 3) / units.Bohr
        file.attrs.update(natoms=len(atoms), method="DMC", temperature=2000.0, pressure=150.0, rs=r_s)
        file.attrs.update(phase="liquid", uuid="0123456789abcdef", species=np.array(sorted(set(atoms.symbols)), "S"))
        file["structure/lattice_vectors"] = np.array(atoms.cell)
        file["structure/positions"] = atoms.positions
        energy = results["energy"]
        for name, value in {
            "total_energy": energy,
            "total_energy_error": 0.05,
            "fsc_potential_energy": 1.5,
            "fsc_kinetic_energy": 0.7,
            "total_energy_uncorrected": energy - 2.2,
        }.items():
            file[f"observables/{name}"] = np.array([value])
        file["observables/forces"] = results["forces"][None]
        file["observables"].attrs["finite_size_corrected"] = True


def one(form: str) -> Callable[[Path, list[Atoms]], None]:
    """Return a writer of one bare frame in a format of ASE."""

    def writer(path: Path, frames: list[Atoms]) -> None:
        atoms = frames[0].copy()
        atoms.info.clear()
        options: dict[str, Any] = {"pseudopotentials": {"H": "h.upf"}} if form == "espresso-in" else {}
        with contextlib.redirect_stdout(io.StringIO()):
            write(path, atoms, format=form, **options)

    return writer


def write_xdatcar(path: Path, frames: list[Atoms]) -> None:
    write(path, [atoms.copy() for atoms in frames], format="vasp-xdatcar")


def write_reference(path: Path, frames: list[Atoms]) -> None:
    """Write labels under the names that training sets of potentials use, with a virial for the stress."""
    named = []
    for atoms in frames:
        copy, results = atoms.copy(), labels_of(atoms)
        copy.info["REF_energy"] = results["energy"]
        copy.info["REF_virial"] = -np.eye(3).ravel() * 1.5 * atoms.get_volume()
        copy.arrays["REF_forces"] = results["forces"]
        named.append(copy)
    write(path, named, format="extxyz")


def write_ipi(path: Path, frames: list[Atoms]) -> None:
    """Write as i-PI does, bohr for the cell and Å for the positions."""
    lines = []
    for atoms in frames:
        cell = cell_to_cellpar(atoms.cell)
        cell[:3] /= units.Bohr
        numbers = " ".join(f"{x:.10f}" for x in cell)
        lines += [
            str(len(atoms)),
            f"# CELL(abcABC): {numbers} Step: 0 Bead: 0 positions{{angstrom}} cell{{atomic_unit}}",
        ]
        places = atoms.get_scaled_positions(wrap=False) @ cellpar_to_lower(atoms)
        lines += [f"{s:>8} {x:.8e} {y:.8e} {z:.8e}" for s, (x, y, z) in zip(atoms.symbols, places, strict=True)]
    path.write_text("\n".join(lines) + "\n")


def cellpar_to_lower(atoms: Atoms) -> np.ndarray:
    return np.array(atoms.cell.standard_form()[0])


def write_res(path: Path, frames: list[Atoms]) -> None:
    """Write one structure after the other, with an enthalpy that is no energy."""
    lines = []
    for i, atoms in enumerate(frames):
        volume = atoms.get_volume()
        cell = " ".join(f"{x:.8f}" for x in cell_to_cellpar(atoms.cell))
        lines += [f"TITL h-{i} 300.00 {volume:.6f} {-12.0 * len(atoms)} 0.00 0.00 {len(atoms)} (P1) n - 1"]
        lines += [f"CELL 1.54180 {cell}", "LATT -1", f"SFAC {' '.join(dict.fromkeys(atoms.symbols))}"]
        kinds = list(dict.fromkeys(atoms.symbols))
        for s, (x, y, z) in zip(atoms.symbols, atoms.get_scaled_positions(), strict=True):
            lines.append(f"{s:<4} {kinds.index(s) + 1} {x:.10f} {y:.10f} {z:.10f} 1.0")
        lines += ["END", ""]
    path.write_text("\n".join(lines) + "\n")


def write_lammps(path: Path, frames: list[Atoms]) -> None:
    atoms = frames[0].copy()
    write(path, atoms, format="lammps-data", masses=True)


def write_dump(path: Path, frames: list[Atoms]) -> None:
    """Write a text dump of LAMMPS with elements and forces, in metal units."""
    lines = ["ITEM: UNITS", "metal"]
    for step, atoms in enumerate(frames):
        cell = np.array(atoms.cell.standard_form()[0])
        (xy, xz, yz), ends = (cell[1, 0], cell[2, 0], cell[2, 1]), np.diag(cell)
        low, high = (min(0, xy, xz, xy + xz), min(0, yz), 0.0), (max(0, xy, xz, xy + xz), max(0, yz), 0.0)
        lines += ["ITEM: TIMESTEP", str(step), "ITEM: NUMBER OF ATOMS", str(len(atoms))]
        lines += ["ITEM: BOX BOUNDS xy xz yz pp pp pp"]
        lines += [f"{low[i]:.10f} {ends[i] + high[i]:.10f} {(xy, xz, yz)[i]:.10f}" for i in range(3)]
        lines += ["ITEM: ATOMS id element x y z fx fy fz"]
        places = atoms.get_scaled_positions(wrap=False) @ cell
        for i, (s, x, f) in enumerate(zip(atoms.symbols, places, labels_of(atoms)["forces"], strict=True)):
            lines.append(f"{i + 1} {s} " + " ".join(f"{v:.8f}" for v in (*x, *f)))
    path.write_text("\n".join(lines) + "\n")


def write_aims(path: Path, frames: list[Atoms]) -> None:
    lines = [f"lattice_vector {' '.join(map(repr, row))}" for row in np.array(frames[0].cell).tolist()]
    for symbol, place in zip(frames[0].symbols, frames[0].positions.tolist(), strict=True):
        lines.append(f"atom {' '.join(map(repr, place))} {symbol}")
    path.write_text("\n".join(lines) + "\n")


def write_siesta(path: Path, frames: list[Atoms]) -> None:
    atoms = frames[0]
    lines = [" ".join(f"{x / units.Bohr:.9f}" for x in row) + " 0.0 0.0 0.0" for row in np.array(atoms.cell)]
    lines.append(str(len(atoms)))
    for z, x in zip(atoms.numbers, atoms.positions, strict=True):
        lines.append(f"1 {z} " + " ".join(f"{v / units.Bohr:.9f}" for v in x) + " 0.0 0.0 0.0")
    path.write_text("\n".join(lines) + "\n")


def write_outcar(path: Path, frames: list[Atoms]) -> None:
    """Write what ASE looks for in an OUTCAR."""
    number = len(frames[0])
    lines = [" vasp.6.3.0 20Jan22 complex", *[" POTCAR:    PAW_PBE H 15Jun2001"] * 2]
    lines += [" k-points  NKPTS =      1   k-points in BZ  NKDIM =      1   number of bands  NBANDS=      8"]
    lines += [f" NELECT =   {number:.4f}    total number of electrons", f" ions per type =      {number}"]
    lines += [" k-points in reciprocal lattice and weights: Gamma", " 0.0 0.0 0.0  1.0", "---- Iteration 1(   1) ----"]
    for atoms in frames:
        energy, forces = labels_of(atoms)["energy"], labels_of(atoms)["forces"]
        lines += [
            "  in kB    1500.0 1600.0 1700.0 10.0 20.0 30.0",
            "  direct lattice vectors    reciprocal lattice vectors",
        ]
        lines += [" ".join(f"{x:14.9f}" for x in (*row, 0, 0, 0)) for row in np.array(atoms.cell)]
        lines += [" POSITION                    TOTAL-FORCE (eV/Angst)", " " + "-" * 80]
        lines += [" ".join(f"{v:14.6f}" for v in (*x, *f)) for x, f in zip(atoms.positions, forces, strict=True)]
        lines += ["  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)", "  ----"]
        lines += [f"  free  energy   TOTEN  =  {energy:.8f} eV", ""]
        lines += [f"  energy  without entropy=  {energy:.8f}  energy(sigma->0) =  {energy:.8f}"]
    path.write_text("\n".join([*lines, " General timing and accounting informations for this job:"]) + "\n")


def write_symmetric(path: Path, frames: list[Atoms]) -> None:
    """Write two protons of a hexagonal cell by one, at a third that is printed with three digits."""
    edge = float(np.array(frames[0].cell)[0, 0]) / 2
    path.write_text(
        f"data_h\n_cell_length_a {edge:.5f}\n_cell_length_b {edge:.5f}\n_cell_length_c {1.6 * edge:.5f}\n"
        "_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 120\n_space_group_IT_number 194\n"
        "_space_group_name_H-M_alt 'P 63/m m c'\n_chemical_formula_sum H2\n_cell_formula_units_Z 1\n"
        "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nH1 0.333 0.667 0.25\n"
    )


LAYOUTS: dict[str, Callable[[Path, list[Atoms]], None]] = {
    "frames.extxyz": write_extxyz,
    "reptation.xyz": write_reptation,
    "frames.traj": lambda path, frames: write(path, frames, format="traj"),
    "text.hdf5": write_text_layout,
    "arrays.h5": write_array_layout,
    "frames.xyz.gz": write_compressed,
    "POSCAR": one("vasp"),
    "XDATCAR": write_xdatcar,
    "h.cif": one("cif"),
    "h.xsf": one("xsf"),
    "h.cube": one("cube"),
    "h.gen": one("gen"),
    "h.pwi": one("espresso-in"),
    "geometry.in": write_aims,
    "reference.xyz": write_reference,
    "ipi.xyz": write_ipi,
    "h.res": write_res,
    "h.lmp": write_lammps,
    "h.dump": write_dump,
    "h.XV": write_siesta,
    "symmetric.cif": write_symmetric,
    "OUTCAR": write_outcar,
}
LABELLED = ("frames.extxyz", "reptation.xyz", "frames.traj", "text.hdf5", "arrays.h5", "frames.xyz.gz", "reference.xyz")
WEIGHTS = (4, 4, 4, 4, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 2, 2, 2, 2, 1, 1, 1)

FIXED = ("symmetric.cif", "OUTCAR")
"""Layouts whose content does not follow all of the frames."""

UNCOUNTED = ("geometry.in",)
"""Layouts that nowhere say how many atoms they hold, so that nobody can know that some were lost."""


def disguise(path: Path, name: str, rng: random.Random) -> Path:
    """Give a sound file another name, a byte-order mark, other line ends or a compression that its name hides."""
    kinds = ["name", "marks"] if name.split(".")[-1] not in ("traj", "hdf5", "h5", "gz") else ["name"]
    kinds += ["packed"] if name in ("frames.extxyz", "reptation.xyz", "reference.xyz") else []
    kind = rng.choice(kinds)
    if kind == "marks":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", rng.choice([b"\n", b"\r\n"])))
    if kind == "packed":
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    if kind == "name":
        others = ["x.data", "x.xyz", "x.cif", "POSCAR_x", "x.traj", "x.txt", "x.out", "noending", "x.json", "x.gro"]
        path = path.rename(path.with_name(rng.choice(others)))
    return path
