"""A thousand damaged files through `fnqs-data import`: each is read correctly or refused in one clear sentence.

    python tests/benchmarks/fuzz_readers.py --count 1000 --seed 1

Sound files of every layout are written (extxyz as it comes from ASE, from reptation QMC and compressed; .traj; both
QMC-HAMM HDF5 layouts; POSCAR, XDATCAR, CIF, XSF, cube, DFTB+ gen, Quantum ESPRESSO input) and damaged at
random, the same for the same seed. Each damaged file may add 2 GB of memory and take 60 s. The exit code is 1 if there
is any finding:

- a traceback, a crash, a hang, or more than one sentence; a sentence without the file or without the frame;
- a file whose damage leaves no doubt (other species, NaN, impossible counts, a stated r_s that disagrees, required
  parts missing, nothing at all) that was read all the same;
- silently wrong: a record with another number of protons than the original frame of its number; and, where the damage
  only removed something (a cut, a missing label) or was too little to matter, a number that differs from the original.
  A digit that was replaced by another, or a consistent change of units within what hydrogen allows, cannot be told
  from a sound file by anyone, and counts as "changed, plausible".
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from fnqs_data.commands import main as fnqs_data
from fnqs_data.readers import read_records
from fnqs_data.readers.guarded import stop_children
from fnqs_data.store.record import Record
from fnqs_data.store.store import open_dataset

MEMORY, SECONDS = 2 << 30, 60
NUMBER, FRAMES, DENSITY = 16, 3, 1.4


@dataclass(frozen=True)
class Damage:
    """What was done to a file: `must_refuse`, `may_change` numbers (not N), or neither: what is left is unchanged."""

    name: str
    must_refuse: bool = False
    may_change: bool = False


# ---------------------------------------------------------------- sound files


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
            f'energy={float(atoms.calc.results["energy"])!r} pbc="T T T"',
        ]
        for symbol, x, f in zip(atoms.symbols, atoms.positions, atoms.calc.results["forces"], strict=True):
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
    density = (3 * atoms.get_volume() / (4 * np.pi * len(atoms))) ** (1 / 3) / units.Bohr
    atoms.info.update(rs=density, pressure=150, temperature=2000, phase="liquid", method="NPT")
    with tempfile.NamedTemporaryFile(suffix=".xyz") as plain, h5py.File(path, "w") as file:
        write_extxyz(Path(plain.name), [atoms])
        file["xyz_data"] = Path(plain.name).read_bytes()
        file["gofr_data"] = b"# r  g(r)\n0.1 0.0\n"


def write_array_layout(path: Path, frames: list[Atoms]) -> None:
    """Write the newer QMC-HAMM HDF5 layout."""
    atoms, results = frames[0], frames[0].calc.results
    with h5py.File(path, "w") as file:
        density = (3 * atoms.get_volume() / (4 * np.pi * len(atoms))) ** (1 / 3) / units.Bohr
        file.attrs.update(natoms=len(atoms), method="DMC", temperature=2000.0, pressure=150.0, rs=density)
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
        options = {"pseudopotentials": {"H": "h.upf"}} if form == "espresso-in" else {}
        with contextlib.redirect_stdout(io.StringIO()):
            write(path, atoms, format=form, **options)

    return writer


def write_xdatcar(path: Path, frames: list[Atoms]) -> None:
    write(path, [atoms.copy() for atoms in frames], format="vasp-xdatcar")


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
}
LABELLED = ("frames.extxyz", "reptation.xyz", "frames.traj", "text.hdf5", "arrays.h5", "frames.xyz.gz")
WEIGHTS = (4, 4, 4, 4, 4, 1, 1, 1, 1, 1, 1, 1, 1)


# ---------------------------------------------------------------- damage to bytes


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


# ---------------------------------------------------------------- damage to content, before a sound file is written


def helium(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    frames[0].symbols[rng.randrange(NUMBER)] = rng.choice(["He", "Li", "C", "X"])
    return Damage("mixed species", must_refuse=True)


def odd_count(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    calc, frames[0].calc = frames[0].calc, None
    calc.results["forces"] = calc.results["forces"][1:]
    del frames[0][rng.randrange(NUMBER)]
    frames[0].calc = calc
    return Damage("odd N", must_refuse=True)


def not_a_number(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    if rng.random() < 0.5 and name != "h.cube":
        frames[0].positions[rng.randrange(NUMBER), 1] = rng.choice([np.nan, np.inf])
    else:
        frames[0].cell[rng.randrange(3), rng.randrange(3)] = rng.choice([np.nan, np.inf])
    return Damage("NaN in the geometry", must_refuse=True)


def not_a_label(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    """Put NaN into one label; the newer HDF5 layout writes absent energies so."""
    label = rng.choice(["energy", "forces"])
    results = frames[0].calc.results
    results[label] = results[label] * np.nan
    return Damage(f"NaN in the {label}", must_refuse=name in LABELLED and name != "arrays.h5")


def length_units(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    scale = rng.choice([0.1, 0.01, 1 / units.Bohr, units.Bohr, 10, 100])
    for atoms in frames:
        atoms.set_cell(scale * np.array(atoms.cell), scale_atoms=True)
    return Damage("lengths in other units", must_refuse=not 0.5 < scale < 2, may_change=True)


def energy_units(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    scale = rng.choice([1 / NUMBER, 1 / units.Hartree, 23.06, 96.485, 1000])
    for atoms in frames:
        atoms.calc.results["energy"] *= scale
    # Too small is too small only for many protons: with 16, a single twist may shift more than that.
    return Damage("energy in other units", must_refuse=scale > 1 and name in LABELLED, may_change=True)


def two_at_one_place(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    first, second = rng.sample(range(NUMBER), 2)
    frames[0].positions[first] = frames[0].positions[second] + np.array(frames[0].cell)[rng.randrange(3)]
    return Damage("two protons at one place", must_refuse=True)


def no_cell(frames: list[Atoms], rng: random.Random, name: str) -> Damage:
    frames[0].cell[rng.randrange(3)] = 0
    return Damage("flat cell", must_refuse=True)


CONTENT_DAMAGE = (helium, odd_count, not_a_number, not_a_label, length_units, energy_units, two_at_one_place, no_cell)


# ---------------------------------------------------------------- damage to HDF5 and .traj structure


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
            values = file[part][()]
            del file[part]
            file[part] = values[:-1] if rng.random() < 0.5 else values.T
            # The transpose of a cell is a cell; its volume, and so r_s, are the same.
            return Damage("another shape", must_refuse=part == required[0] or len(file[part]) < 3, may_change=True)
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


# ---------------------------------------------------------------- one case


def make_case(folder: Path, name: str, seed: int) -> tuple[Path, Damage, list[Record]]:
    """Write a sound file, read it, and write a damaged one in its place."""
    rng = random.Random(seed)
    path = folder / name
    write_layout, generator = LAYOUTS[name], np.random.default_rng(seed)
    frames = make_frames(generator)
    write_layout(path, frames)
    sound = read_records(path)
    kind = rng.random()
    if kind < 0.3:
        damage = rng.choice(CONTENT_DAMAGE)(frames, rng, name)
        path.unlink()
        # A library that refuses to write the nonsense leaves nothing to read.
        with contextlib.suppress(Exception):
            write_layout(path, frames)
        if not path.exists():
            path.write_bytes(b"")
    elif kind < 0.5 and name == "arrays.h5":
        damage = damage_arrays(path, rng)
    elif kind < 0.5 and name == "frames.traj":
        damage = damage_trajectory(path, rng)
    else:
        data, damage = rng.choice(BYTE_DAMAGE)(path.read_bytes(), rng)
        path.write_bytes(data)
    return path, damage, sound


def run_case(folder: Path, path: Path, skip_bad: bool) -> tuple[int, str]:
    """Import a file: its exit code (70 for an exception) and what it said on stderr."""
    errors = io.StringIO()

    def hang(*_) -> None:
        raise TimeoutError(f"no end after {SECONDS} s")

    signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = fnqs_data(["import", str(path), "--output", str(folder / "set")] + ["--skip-bad"] * skip_bad)
        except BaseException:
            code = 70
            traceback.print_exc()
    signal.alarm(0)
    return code, errors.getvalue()


def judge(
    path: Path, damage: Damage, sound: list[Record], code: int, text: str, records: list[Record]
) -> tuple[str, str]:
    """Return the class of an outcome and, for a finding, what is wrong with it."""
    lines = text.splitlines()
    if "Traceback" in text or code not in (0, 2):
        return "finding", f"exit code {code}, {text[-600:]}"
    if code == 2:
        if len(lines) != 1 or not lines[0].startswith("fnqs-data: ") or path.name not in lines[0]:
            return "finding", f"not one sentence with the file: {text[:600]}"
        whole = ("recogni", "empty", "no such frames", "not read", "complete", "Å", "frame", "unpack", "no records")
        if not any(word in lines[0] for word in whole):
            return "finding", f"no frame: {text}"
        return "refused", lines[0]
    skipped = bool(lines)
    if damage.must_refuse and not skipped:
        return "finding", "read, but had to be refused"
    changed = False
    for record in records:
        if record.frame is None or record.frame >= len(sound):
            return "finding", f"frame {record.frame} did not exist"
        original = sound[record.frame]
        if record.number != original.number:
            return "finding", f"silently wrong: N = {record.number} instead of {original.number}"
        changed |= differs(record, original)
    if len(records) + len(lines) < 1:
        return "finding", "nothing was read"
    if changed and not damage.may_change and not (damage.must_refuse and skipped):
        return "finding", "silently wrong: numbers differ after damage that only removes"
    if skipped:
        return "read, bad frames skipped", lines[0]
    return ("changed, plausible" if changed else "read, equal to the original"), ""


def differs(record: Record, original: Record) -> bool:
    """Whether a number of the record differs from the original's; a label that is absent does not."""
    pairs = [
        (getattr(record.configuration, part), getattr(original.configuration, part)) for part in ("cell", "protons")
    ]
    for label in ("energy", "energy_error", "forces", "temperature", "pressure", "potential_correction"):
        found = getattr(record, label)
        if found is not None:
            pairs.append((found, getattr(original, label)))
    return any(b is None or not np.array_equal(np.asarray(a, float), np.asarray(b, float)) for a, b in pairs)


def main() -> int:
    """Run the cases and print the figures; 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the files of findings")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # ASE looks for the programs whose input it writes
    started, rng = time.monotonic(), random.Random(options.seed)
    outcomes: Counter[tuple[str, str]] = Counter()
    damages: Counter[tuple[str, str]] = Counter()
    findings = []
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for case in range(options.count):
        name, seed, skip_bad = rng.choices(list(LAYOUTS), WEIGHTS)[0], rng.randrange(2**32), rng.random() < 0.25
        with tempfile.TemporaryDirectory() as folder:
            path, damage, sound = make_case(Path(folder), name, seed)
            code, text = run_case(Path(folder), path, skip_bad)
            records: list[Record] = []
            if code == 0:
                dataset = open_dataset(Path(folder) / "set")
                records = dataset.read(range(len(dataset)))
            outcome, note = judge(path, damage, sound, code, text, records)
            if code and (left := sorted(p.name for p in Path(folder).iterdir() if p != path)):
                outcome, note = "finding", f"left behind: {left}"
            if outcome == "finding":
                findings.append({"case": case, "seed": seed, "file": name, "damage": damage.name, "what": note})
                print(json.dumps(findings[-1], ensure_ascii=False), flush=True)
                if options.keep:
                    options.keep.mkdir(exist_ok=True)
                    (options.keep / f"{case}-{name}").write_bytes(path.read_bytes())
        outcomes[name, outcome] += 1
        damages[damage.name, outcome] += 1
    for title, table in (("file", outcomes), ("damage", damages)):
        print(f"\n{title}")
        for (row, outcome), number in sorted(table.items()):
            print(f"  {row:28s} {outcome:28s} {number:5d}")
    totals = Counter()
    for (_, outcome), number in outcomes.items():
        totals[outcome] += number
    print(f"\n{options.count} files, seed {options.seed}: {dict(totals)}")
    stop_children()
    most = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(
        f"at most {most[0]:.0f} MB here and {most[1]:.0f} MB in the child that reads, "
        f"{time.monotonic() - started:.0f} s, {len(findings)} findings"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
