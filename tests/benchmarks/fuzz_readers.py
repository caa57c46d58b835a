"""Three thousand files through `fnqs-data import`: each is read correctly or refused in one clear sentence.

    python tests/benchmarks/fuzz_readers.py --count 3000 --seed 1

Sound files of every layout are written (extxyz as it comes from ASE, from reptation QMC, with labels named REF_... and
compressed; XYZ of i-PI; .traj; both QMC-HAMM HDF5 layouts; POSCAR, XDATCAR, CIF with and without symmetry, XSF, cube,
DFTB+ gen, Quantum ESPRESSO and FHI-aims input, .res with several structures, LAMMPS data and dumps, SIESTA .XV) and
damaged at random, or disguised (another name, a byte-order mark, hidden compression), the same for the same seed. Each
file may add 2 GB of memory and take 60 s. The exit code is 1 if there is any finding:

- a traceback, a crash, a hang, or more than one sentence; a sentence without the file or without the frame;
- a sound file in disguise, with labels of others or of deuterium, that was not read in full and unchanged;
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
from pathlib import Path

import numpy as np
from fuzz_damage import BYTE_DAMAGE, CONTENT_DAMAGE, Damage, damage_arrays, damage_trajectory
from fuzz_layouts import FIXED, LAYOUTS, UNCOUNTED, WEIGHTS, disguise, make_frames

from fnqs_data.commands import main as fnqs_data
from fnqs_data.readers import read_records
from fnqs_data.readers.sandbox.sandbox import stop_children
from fnqs_data.store.record import Record
from fnqs_data.store.store import open_dataset

MEMORY, SECONDS = 2 << 30, 60


def make_case(folder: Path, name: str, seed: int) -> tuple[Path, Damage, list[Record]]:
    """Write a sound file, read it, and write a damaged one in its place."""
    rng = random.Random(seed)
    path = folder / name
    write_layout, generator = LAYOUTS[name], np.random.default_rng(seed)
    frames = make_frames(generator)
    write_layout(path, frames)
    sound = read_records(path)
    kind = rng.random()
    if kind > 0.9:
        return disguise(path, name, rng), Damage("disguised", must_read=True), sound
    if kind < 0.3 and name not in FIXED:
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
    lines = [line for line in text.splitlines() if not line.startswith("fnqs-data: note: ")]
    if "Traceback" in text or code not in (0, 2):
        return "finding", f"exit code {code}, {text[-600:]}"
    if code == 2:
        if len(lines) != 1 or not lines[0].startswith("fnqs-data: ") or path.name not in lines[0]:
            return "finding", f"not one sentence with the file: {text[:600]}"
        whole = ("recogni", "empty", "no such frames", "not read", "complete", "Å", "frame", "unpack", "no records")
        if not any(word in lines[0] for word in whole):
            return "finding", f"no frame: {text}"
        return ("finding", f"sound, but refused: {lines[0]}") if damage.must_read else ("refused", lines[0])
    skipped = bool(lines)
    if damage.must_refuse and not skipped:
        return "finding", "read, but had to be refused"
    if damage.must_read and (skipped or len(records) != len(sound)):
        return "finding", f"sound, but {len(records)} of {len(sound)} frames were read"
    changed = False
    for record in records:
        # A piece of a frame that was repeated counts as a frame, a bad one; those behind it move up.
        moved = skipped and damage.may_change
        if record.frame is None or (record.frame >= len(sound) and not moved):
            return "finding", f"frame {record.frame} did not exist"
        original = sound[min(record.frame, len(sound) - 1)]
        if record.n_atoms != original.n_atoms and damage.may_change and path.name in UNCOUNTED:
            return "changed, plausible", ""
        if record.n_atoms != original.n_atoms:
            return "finding", f"silently wrong: N = {record.n_atoms} instead of {original.n_atoms}"
        changed |= differs(record, original)
        if damage.must_read and damage.isotope != record.isotope:
            return "finding", f"the isotope is {record.isotope!r}, not {damage.isotope!r}"
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
    for label in ("energy", "energy_error", "forces", "stress", "temperature", "pressure", "potential_correction"):
        found = getattr(record, label)
        if found is not None:
            pairs.append((found, getattr(original, label)))
    return any(b is None or not np.array_equal(np.asarray(a, float), np.asarray(b, float)) for a, b in pairs)


def main() -> int:
    """Run the cases and print the figures; 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000)
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
