"""Files that would hang, crash or mislead a parser, and the process that reads them."""

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.io import write
from ase.io.formats import ioformats

import fnqs_data
from fnqs.errors import InputError
from fnqs_data.readers import iterate_records, read_records
from fnqs_data.readers.checks.plausible import energy_bounds
from fnqs_data.readers.recognition.known_formats import READ, REFUSED
from fnqs_data.readers.sandbox import sandbox

FUZZER = Path(__file__).parents[1] / "benchmarks" / "fuzz_readers.py"


def test_a_reader_that_died_is_replaced(tmp_path, make_atoms):
    write(tmp_path / "frames.traj", [make_atoms(8), make_atoms(8)])
    read_records(tmp_path / "frames.traj")
    child = sandbox.waiting()[-1]
    child.kill()
    child.wait()
    assert len(read_records(tmp_path / "frames.traj")) == 2


def test_an_abandoned_reading_does_not_mix_into_the_next(tmp_path, make_atoms):
    write(tmp_path / "long.traj", [make_atoms(8, energy=-100.0)] * 500)
    write(tmp_path / "frames.traj", make_atoms(4))
    items = iterate_records(tmp_path / "long.traj")
    assert isinstance(items, Generator)
    next(items)
    (record,) = read_records(tmp_path / "frames.traj")
    assert (record.n_atoms, record.source) == (4, "frames.traj")
    items.close()
    assert read_records(tmp_path / "frames.traj")[0].n_atoms == 4


def test_a_reading_without_an_end_is_one_sentence(tmp_path, make_atoms, monkeypatch):
    write(tmp_path / "frames.traj", make_atoms(8))
    read_records(tmp_path / "frames.traj")
    # Halted, the child neither answers nor ends, however fast the machine is.
    halted = sandbox.waiting()[-1]
    halted.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(sandbox, "READ_PATIENCE", 0.2)
    with pytest.raises(InputError, match=r"frames\.traj: frame 0: its reading crashed or took longer"):
        read_records(tmp_path / "frames.traj")
    assert halted.poll() == -signal.SIGKILL
    monkeypatch.undo()
    assert len(read_records(tmp_path / "frames.traj")) == 1


def test_the_reading_process_runs_connects_and_unpickles_nothing(tmp_path):
    program = (
        "import sys, os, pickle, socket, subprocess\n"
        "from fnqs_data.readers.sandbox.sandbox_child import forbid\n"
        "sys.addaudithook(forbid)\n"
        "class Evil:\n"
        "    def __reduce__(self): return (print, ('unpickled',))\n"
        "data = pickle.dumps(Evil())\n"
        "for act in (lambda: subprocess.run(['true']), lambda: os.system('true'), lambda: os.fork(),\n"
        "            lambda: socket.create_connection(('127.0.0.1', 9)), lambda: pickle.loads(data),\n"
        f"            lambda: open({str(tmp_path / 'x')!r}, 'w')):\n"
        "    try: act()\n"
        "    except PermissionError: print('refused')\n"
    )
    paths = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["refused"] * 6
    assert not (tmp_path / "x").exists()


def reading(folder: Path, path: str, start: str = "") -> subprocess.CompletedProcess:
    """Read a file with fnqs-data in a folder, by a Python that looks for its own modules elsewhere."""
    program = f"import sys; {start}from fnqs_data.commands import main; sys.exit(main(['info', {path!r}]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )


def test_nothing_in_the_working_folder_is_run(tmp_path, make_atoms):
    write(tmp_path / "frames.traj", make_atoms(8))
    for name in ("random", "ase", "numpy", "json", "msgspec", "fnqs", "fnqs_data", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'a').write({name!r})\n")
    done = reading(tmp_path, "frames.traj")
    assert done.returncode == 0, done.stderr
    # Nor where the working folder stands on the path of the process that asks, behind what it has imported itself.
    done = reading(tmp_path, "frames.traj", f"import fnqs_data.commands; sys.path.insert(0, {str(tmp_path)!r}); ")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "was-run").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says how much memory is in use")
def test_a_limit_on_memory_leaves_a_sentence_or_a_result(tmp_path, make_atoms):
    write(tmp_path / "frames.traj", make_atoms(8))
    enough = "import resource as r, fnqs_data.commands; r.setrlimit(r.RLIMIT_AS, (8 << 30, 8 << 30)); "
    done = reading(tmp_path, "frames.traj", enough)
    assert done.returncode == 0, done.stderr
    # Only the process that reads stands under this limit, which its imports exceed; ours has imported what it needs.
    starved = (
        "import resource as r, fnqs_data.commands; from fnqs_data.readers.sandbox import sandbox; "
        "start = sandbox.subprocess.Popen; small = lambda: r.setrlimit(r.RLIMIT_AS, (1 << 28, 1 << 28)); "
        "sandbox.subprocess.Popen = lambda *a, **k: start(*a, preexec_fn=small, **k); "
    )
    done = reading(tmp_path, "frames.traj", starved)
    assert done.returncode == 2
    assert done.stderr.startswith("fnqs-data: the process that reads files did not start")
    assert done.stderr.count("\n") == 1


def test_formats_that_fetch_run_or_unpickle_are_refused(tmp_path):
    readable = {name for name, form in ioformats.items() if form.can_read}
    ours = {"qmc-hamm", "i-pi"}
    # Every format that ASE can read is decided upon, so a new ASE brings no unknown reader.
    assert readable <= set(READ) | set(REFUSED)
    assert not set(READ) & set(REFUSED)
    assert set(READ) - ours <= readable
    for name in ("x.db", "x.json", "x.dcd", "x.gpw", "x.cell", "x.pckl", "x.py"):
        (tmp_path / name).write_bytes(b"some content that is no known format\n")
        with pytest.raises(InputError, match=name):
            read_records(tmp_path / name)
    (tmp_path / "renamed.xyz").write_bytes(b"PickleTrajectory" + bytes(64))
    with pytest.raises(InputError, match=r"renamed\.xyz"):
        read_records(tmp_path / "renamed.xyz")
    os.mkfifo(tmp_path / "pipe.xyz")
    with pytest.raises(InputError, match="pipe"):
        read_records(tmp_path / "pipe.xyz")


def test_one_bad_frame_of_a_trajectory_stands_alone(tmp_path, make_atoms):
    path = tmp_path / "frames.traj"
    write(path, [make_atoms(8), make_atoms(8), make_atoms(8)])
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<q", data, 40)[0]
    offset = struct.unpack_from("<q", data, start + 8)[0]
    length = struct.unpack_from("<q", data, offset)[0]
    description = json.loads(data[offset + 8 : offset + 8 + length])
    description["positions."]["ndarray"][0] = [9, 3]
    text = json.dumps(description, separators=(",", ":")).encode()
    data[offset + 8 : offset + 8 + length] = text.ljust(length)
    path.write_bytes(data)
    items = list(iterate_records(path))
    assert [isinstance(item, InputError) for item in items] == [False, True, False]
    assert "frames.traj: frame 1" in str(items[1])


@pytest.mark.parametrize("number", [10**6, 10**18, -1])
def test_counts_that_a_trajectory_cannot_hold(tmp_path, make_atoms, number):
    path = tmp_path / "frames.traj"
    write(path, make_atoms(8))
    data = bytearray(path.read_bytes())
    data[32:40] = number.to_bytes(8, "little", signed=True)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"frames\.traj: it announces"):
        read_records(path)


@pytest.mark.parametrize("scale", [0.01, 0.1, 10.0, 100.0])
def test_lengths_in_other_units(tmp_path, make_atoms, scale):
    atoms = make_atoms(8)
    atoms.set_cell(scale * np.array(atoms.cell), scale_atoms=True)
    write(tmp_path / "x.extxyz", atoms)
    with pytest.raises(InputError, match=r"frame 0: .*Å"):
        read_records(tmp_path / "x.extxyz")


def test_a_stated_density_is_compared(tmp_path, make_atoms):
    atoms = make_atoms(8)
    atoms.info["rs"] = 1.2407
    write(tmp_path / "x.extxyz", atoms)
    read_records(tmp_path / "x.extxyz")
    # Lengths in bohr that are taken for Å.
    atoms.set_cell(np.array(atoms.cell) / units.Bohr, scale_atoms=True)
    write(tmp_path / "x.extxyz", atoms)
    with pytest.raises(InputError, match=r"states r_s = 1\.2407"):
        read_records(tmp_path / "x.extxyz")


@pytest.mark.parametrize(
    ("r_s", "number", "energy"),
    [
        (1.1, 128, -0.436),  # reptation QMC
        (1.3, 128, -0.5108),  # reptation QMC
        (1.504, 96, -0.5441),  # QMC-HAMM
        (1.31, 2, -1.2734),  # two atoms at Gamma, coupled cluster
        (10.0, 2, -0.587),  # a molecule in a box
        (2.0, 16, -0.35),  # Hartree-Fock, no correlation
    ],
)
def test_true_energies_are_believed_and_other_units_are_not(r_s, number, energy):
    low, high = energy_bounds(r_s, number)
    assert low < energy < high
    if number > 90:
        for wrong in (energy / number, energy / 27.2114, energy * 27.2114, energy * 627.5, energy * 2625.5):
            assert not low <= wrong <= high


def test_wrong_atom_counts_do_not_cost_the_other_frames(tmp_path, make_atoms):
    path = tmp_path / "many.extxyz"
    write(path, [make_atoms(8) for _ in range(4)])
    frames = ["8\n" + part for part in path.read_text().split("8\nLattice")[1:]]
    frames = [frame.replace("8\n", "8\nLattice", 1) for frame in frames]
    frames[1] = frames[1].replace("8\n", "6\n", 1)
    frames[2] = frames[2].replace("8\n", "10\n", 1)
    path.write_text("".join(frames))
    items = list(iterate_records(path))
    assert [isinstance(item, InputError) for item in items] == [False, True, True, False]
    assert "more follow" in str(items[1])
    assert "only 8 follow" in str(items[2])


def test_a_damaged_head_is_not_the_fault_of_the_frame_before(tmp_path, make_atoms):
    path = tmp_path / "many.extxyz"
    write(path, [make_atoms(8) for _ in range(3)])
    first, second, third = path.read_text().split("8\nLattice")[1:]
    path.write_text(f"8\nLattice{first}x8\nLattice{second}\n\n8\nLattice{third}")
    assert [isinstance(item, InputError) for item in iterate_records(path)] == [False, True, False]


@pytest.mark.parametrize("name", ["x.extxyz", "POSCAR", "x.xsf"])
def test_a_last_number_cut_short_is_noticed(tmp_path, make_atoms, name):
    atoms = make_atoms(8)
    atoms.calc = None
    write(tmp_path / name, atoms)
    text = (tmp_path / name).read_text().rstrip()
    (tmp_path / name).write_text(text)
    assert len(read_records(tmp_path / name)) == 1
    (tmp_path / name).write_text(text[:-3])
    with pytest.raises(InputError, match="complete"):
        read_records(tmp_path / name)


def test_a_cif_must_hold_its_formula(tmp_path, make_atoms):
    write(tmp_path / "x.cif", make_atoms(8))
    lines = (tmp_path / "x.cif").read_text().splitlines()
    (tmp_path / "x.cif").write_text("\n".join(lines[:-2]) + "\n")
    with pytest.raises(InputError, match="6 atoms but its formula has 8"):
        read_records(tmp_path / "x.cif")


def test_sixty_damaged_files():
    # The command prints every finding, and 1 as its exit code if there is one.
    paths = os.pathsep.join([str(Path(fnqs_data.__file__).parents[1]), *(p for p in sys.path if p)])
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--count", "60", "--seed", "3"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.endswith("0 findings\n")
