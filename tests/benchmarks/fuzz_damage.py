"""Damage for fuzz_readers.py: to bytes, to the content before a sound file is written, to the structure of files."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms, units
from fuzz_layouts import DENSITY, LABELLED, NUMBER, labels_of


@dataclass(frozen=True)
class Damage:
    """What was done to a file.

    `must_refuse`; `may_change` numbers (not N); `must_read` with nothing changed, as it was no damage; or none of
    them: what is left is unchanged.
    """

    name: str
    must_refuse: bool = False
    may_change: bool = False
    must_read: bool = False
    isotope: str = ""


def truncate(data: bytes, rng: random.Random) -> tuple[bytes, Damage]:
    size = rng.choice([rng.randrange(1, len(data)), len(data) - rng.randrange(1, min(60, len(data)))])
    return data[:size], Damage("truncated")


def empty(data: bytes, rng: random.Random) -> tuple[bytes, Damage]:
    return rng.choice([b"", b"\n", b" \n\n"]), Damage("empty", must_refuse=True)


def flip(data: bytes, rng: random.Random) -> tuple[bytes, Damage]:
    array = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        array[rng.randrange(len(array))] ^= 1 << rng.randrange(8)
    return bytes(array), Damage("bits flipped", may_change=True)


def lose_chunk(data: bytes, rng: random.Random) -> tuple[bytes, Damage]:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 400) :], Damage("chunk lost", may_change=True)


def repeat_chunk(data: bytes, rng: random.Random) -> tuple[bytes, Damage]:
    start = rng.randrange(len(data))
    stop = start + rng.randrange(1, 400)
    return data[:stop] + data[start:stop] + data[stop:], Damage("chunk repeated", may_change=True)


def zero_block(data: bytes, rng: random.Random) -> tuple[bytes, Damage]:
    start = rng.randrange(len(data))
    size = min(rng.choice([8, 64, 512]), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :], Damage("block of zeros", may_change=True)


def odd_number(data: bytes, rng: random.Random) -> tuple[bytes, Damage]:
    """Replace one number of a text by NaN, infinity, a huge or a negative one, or a word."""
    words = data.split(b" ")
    places = [i for i, word in enumerate(words) if word.strip().replace(b".", b"").replace(b"-", b"").isdigit()]
    if not places:
        return flip(data, rng)
    place = rng.choice(places)
    new = rng.choice([b"NaN", b"inf", b"1e400", b"99999999999", b"-3", b"1e30", b"what", b"0"])
    words[place] = words[place].replace(words[place].strip(), new)
    return b" ".join(words), Damage("odd number", may_change=True)


def huge_count(data: bytes, rng: random.Random) -> tuple[bytes, Damage]:
    """Replace the number of protons, wherever it stands as a word of a text, by a huge one."""
    lines = data.split(b"\n")
    places = [i for i, line in enumerate(lines[:12]) if str(NUMBER).encode() in line.split()]
    if not places:
        return truncate(data, rng)
    place = rng.choice(places)
    new = rng.choice([b"1000000", b"999999999", b"99999999999999999999"])
    lines[place] = lines[place].replace(str(NUMBER).encode(), new, 1)
    return b"\n".join(lines), Damage("huge count", must_refuse=True)


BYTE_DAMAGE = (
    truncate,
    truncate,
    flip,
    flip,
    flip,
    lose_chunk,
    repeat_chunk,
    zero_block,
    odd_number,
    huge_count,
    empty,
)


def helium(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    # LAMMPS knows elements by their masses, and that of X is taken for hydrogen's.
    others = ["He", "Li", "C"] if name == "h.lmp" else ["He", "Li", "C", "X"]
    frames[0].symbols[rng.randrange(NUMBER)] = rng.choice(others)
    return Damage("mixed species", must_refuse=True)


def odd_count(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    labels, calc, frames[0].calc = labels_of(frames[0]), frames[0].calc, None
    labels["forces"] = labels["forces"][1:]
    del frames[0][rng.randrange(NUMBER)]
    frames[0].calc = calc
    return Damage("odd N", must_refuse=True)


def not_a_number(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    if rng.random() < 0.5 and name != "h.cube":
        frames[0].positions[rng.randrange(NUMBER), 1] = rng.choice([np.nan, np.inf])
    else:
        cell = np.array(frames[0].cell)
        cell[rng.randrange(3), rng.randrange(3)] = rng.choice([np.nan, np.inf])
        frames[0].set_cell(cell)
    return Damage("NaN in the geometry", must_refuse=True)


def not_a_label(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    """Put NaN into one label; the newer HDF5 layout writes absent energies so."""
    label = rng.choice(["energy", "forces"])
    results = labels_of(frames[0])
    results[label] = results[label] * np.nan
    return Damage(f"NaN in the {label}", must_refuse=name in LABELLED and name != "arrays.h5")


def length_units(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    scale = rng.choice([0.1, 0.01, 1 / units.Bohr, units.Bohr, 10, 100])
    for atoms in frames:
        atoms.set_cell(scale * np.array(atoms.cell), scale_atoms=True)
    return Damage("lengths in other units", must_refuse=not 0.5 < scale < 2, may_change=True)


def energy_units(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    scale = rng.choice([1 / NUMBER, 1 / units.Hartree, 1 / units.Rydberg, 23.06, 96.485, 1000])
    for atoms in frames:
        labels_of(atoms)["energy"] *= scale
    return Damage("energy in other units", must_refuse=name in LABELLED, may_change=True)


def charge(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    frames[0].info[rng.choice(["charge", "total_charge", "Charge"])] = rng.choice([1, -2, 0.5])
    return Damage("charge", must_refuse=name in EXTENDED)


def rival_label(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    """Add a second energy that differs from the first."""
    rival = "dft_energy" if name == "reference.xyz" else "REF_energy"
    frames[0].info[rival] = labels_of(frames[0])["energy"] + rng.choice([0.3, -2.0, 50.0])
    return Damage("two energies", must_refuse=name in EXTENDED)


def other_labels(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    """Add what is no label of ours, with numbers that could be taken for one."""
    for atoms in frames:
        atoms.info.update(free_energy=-1.0, dipole=[1.0, 2.0, 3.0], E0=-3.0, mace_energy=-5.0)
    return Damage("labels of others", must_read=True)


def deuterium(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    """Give all protons the mass of deuterium, which formats without masses cannot hold."""
    for atoms in frames:
        atoms.set_array("masses", np.full(len(atoms), 2.014))
    keeps = name in (*EXTENDED, "h.lmp", "h.pwi")
    if name == "reference.xyz":
        for atoms in frames:
            atoms.arrays["mass"] = atoms.arrays.pop("masses")
    return Damage("deuterium", must_read=True, isotope="D" if keeps else "")


def two_at_one_place(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    first, second = rng.sample(range(NUMBER), 2)
    frames[0].positions[first] = frames[0].positions[second] + np.array(frames[0].cell)[rng.randrange(3)]
    return Damage("two protons at one place", must_refuse=True)


def no_cell(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    cell = np.array(frames[0].cell)
    cell[rng.randrange(3)] = 0
    frames[0].set_cell(cell)
    return Damage("flat cell", must_refuse=True)


EXTENDED = ("frames.extxyz", "frames.xyz.gz", "reference.xyz", "text.hdf5", "frames.traj")
"""Layouts in which a frame's notes are kept."""

CONTENT_DAMAGE = (
    helium,
    odd_count,
    not_a_number,
    not_a_label,
    length_units,
    energy_units,
    two_at_one_place,
    no_cell,
    charge,
    rival_label,
    other_labels,
    deuterium,
)


def damage_arrays(path: Path, rng: random.Random) -> Damage:
    """Remove, reshape, retype or misdirect one part of the newer HDF5 layout."""
    required = ("structure/positions", "structure/lattice_vectors")
    optional = ("total_energy", "total_energy_error", "forces", "fsc_potential_energy", "total_energy_uncorrected")
    with h5py.File(path, "r+") as file:
        what = rng.choice(["lost", "lost label", "shape", "huge", "type", "link", "attribute", "natoms", "rs"])
        part = rng.choice(required)
        if what == "lost":
            del file[part]
        elif what == "lost label":
            del file[f"observables/{rng.choice(optional)}"]
            return Damage("missing label")
        elif what == "shape":
            values = np.array(file[part])
            values = values[:-1] if rng.random() < 0.5 else values.T
            del file[part]
            file[part] = values
            # The transpose of a cell is a cell; its volume, and so r_s, are the same.
            return Damage("another shape", must_refuse=part == required[0] or len(values) < 3, may_change=True)
        elif what == "huge":
            del file[part]
            file.create_dataset(part, shape=(10**9, 3), chunks=(1024, 3), dtype="f8", compression="gzip")
        elif what == "type":
            del file[part]
            file[part] = rng.choice(["words", np.zeros((NUMBER, 3), complex), np.bytes_(b"x" * 9)])
        elif what == "link":
            del file[part]
            file[part] = rng.choice([h5py.ExternalLink("/etc/passwd", "/x"), h5py.SoftLink("/structure")])
        elif what == "attribute":
            del file.attrs["natoms"]
        elif what == "natoms":
            file.attrs["natoms"] = rng.choice([0, -16, 2**62, NUMBER - 2, "many", np.nan])
        else:
            file.attrs["rs"] = rng.choice([DENSITY * units.Bohr, 2.2, -1.0, np.inf])
    return Damage(f"HDF5: {what}", must_refuse=True)


def damage_trajectory(path: Path, rng: random.Random) -> Damage:
    """Change one count, offset or shape of a .traj file."""
    data = bytearray(path.read_bytes())
    what = rng.choice(["frames", "start", "offset", "shape"])
    huge = rng.choice([2**31, 2**62, -1, len(data) + 1]).to_bytes(8, "little", signed=True)
    start = int.from_bytes(data[40:48], "little")
    if what == "frames":
        data[32:40] = huge
    elif what == "start":
        data[40:48] = huge
    elif what == "offset":
        data[start : start + 8] = huge
    else:
        old, new = b'"ndarray": [[16, 3]', rng.choice([b'"ndarray": [[99, 3]', b'"ndarray": [[-1, 3]'])
        # In the description of the first frame, which all others share nothing with.
        data = data.replace(old, new, 1)
    path.write_bytes(bytes(data))
    return Damage(f"traj: {what}", must_refuse=True)
