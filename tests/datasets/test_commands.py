import errno
import os
import subprocess
import sys

import pytest
from ase import units
from ase.io import write

from fnqs_data.commands import main
from fnqs_data.generate.molecular import bond_length
from fnqs_data.readers import progress
from fnqs_data.store import shards
from fnqs_data.store.store import open_dataset
from fnqs_data.store.write import write_dataset


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(
        'name = "small"\n[[family]]\nphase = "sc"\nnumber = [2, 8]\nr_s = [1.2, 2.0]\ncount = 6\n'
        '[[family]]\nphase = "pa3"\nnumber = [8]\nr_s = 2.0\ncount = 3\n'
    )
    return path


@pytest.fixture
def frames(tmp_path, make_atoms):
    path = tmp_path / "frames.extxyz"
    bad = make_atoms(4, symbol="He")
    write(path, [make_atoms(8, energy=-0.5 * 8 * units.Hartree), bad, make_atoms(4)])
    return path


def failing(capsys, *arguments: object) -> str:
    """Run a command that must fail with one sentence and exit code 2, and return the sentence."""
    assert main([str(a) for a in arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("fnqs-data: ")
    assert message.count("\n") == 1
    return message


def test_build_info_verify_plot(tmp_path, recipe, capsys):
    folder = tmp_path / "set"
    assert main(["build", str(recipe), "--output", str(folder), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "pa3" in printed
    assert "9 configurations" in printed
    assert main(["info", str(folder)]) == 0
    assert capsys.readouterr().out == printed
    assert main(["verify", str(folder)]) == 0
    capsys.readouterr()
    assert main(["plot", str(folder), "--output", str(tmp_path / "set.png")]) == 0
    *peaks, written = capsys.readouterr().out.splitlines()
    assert [line for line in peaks if line.startswith("sc")] == ["sc: g(r) has no peak of a bond"]
    (bond,) = [line for line in peaks if line.startswith("pa3")]
    assert float(bond.split()[-2]) == pytest.approx(bond_length(2.0), abs=0.03)  # half a bin, and two decimals
    assert written == str(tmp_path / "set.png")
    assert (tmp_path / "set.png").is_file()
    shard = folder / "shard-00000.array_record"
    shard.write_bytes(shard.read_bytes()[:-1])
    capsys.readouterr()
    assert main(["verify", str(folder)]) == 1
    assert shard.name in capsys.readouterr().err


def test_build_into_the_cache(tmp_path, recipe, monkeypatch, capsys):
    monkeypatch.setenv("FNQS_CACHE", str(tmp_path / "cache"))
    assert main(["build", str(recipe)]) == 0
    assert "cache" in capsys.readouterr().out


def test_info_lists_every_frame(tmp_path, make_atoms, capsys):
    path = tmp_path / "frames.extxyz"
    write(path, [make_atoms(8, energy=-0.5 * 8 * units.Hartree), make_atoms(4, energy=-units.Hartree)])
    assert main(["info", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("1.2407" in line and "-0.500000" in line and " 8 " in line for line in lines)  # r_s = 4/(32π/3)^⅓
    assert any("1.5632" in line and "-0.250000" in line and " 4 " in line for line in lines)
    assert "2 frames, N 4 to 8" in lines[-1]


def test_import_refuses_or_skips_bad_frames(tmp_path, frames, capsys):
    message = failing(capsys, "import", frames, "--output", tmp_path / "set")
    assert "frames.extxyz: frame 1" in message
    assert "He" in message
    assert "--skip-bad" in message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frames.extxyz"]
    assert main(["import", str(frames), "--output", str(tmp_path / "set"), "--skip-bad", "--note", "CC0"]) == 0
    error = capsys.readouterr().err
    assert "frame 1" in error
    assert "1 bad frames were skipped" in error
    dataset = open_dataset(tmp_path / "set")
    assert dataset.identifiers == ["frames.extxyz#0", "frames.extxyz#2"]
    assert dataset.manifest.note == "CC0"
    assert dataset[0].energy_per_atom == pytest.approx(-0.5, abs=1e-12)  # one division


def test_no_good_frame_at_all(tmp_path, make_atoms, capsys):
    write(tmp_path / "bad.extxyz", [make_atoms(4, symbol="He"), make_atoms(4, symbol="Li")])
    message = failing(capsys, "import", tmp_path / "bad.extxyz", "--skip-bad", "--output", tmp_path / "set")
    assert "all 2 frames are bad" in message
    assert "bad.extxyz: frame 0" in message


def test_names_from_files_are_no_markup(tmp_path, make_atoms, capsys):
    atoms = make_atoms(8)
    atoms.info["phase"] = "[/bold]liquid"
    write(tmp_path / "[red].extxyz", atoms)
    assert main(["info", str(tmp_path / "[red].extxyz")]) == 0
    assert "[/bold]liquid" in capsys.readouterr().out


def test_files_of_one_name_are_told_apart(tmp_path, make_atoms):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "POSCAR", make_atoms(4))
    files = [str(tmp_path / folder / "POSCAR") for folder in ("a", "b")]
    assert main(["import", *files, "--output", str(tmp_path / "set")]) == 0
    assert open_dataset(tmp_path / "set").identifiers == ["a/POSCAR#0", "b/POSCAR#0"]


def test_as_much_of_the_path_as_tells_files_apart(tmp_path, make_atoms, capsys):
    files = []
    for folder in ("calc1/relax", "calc2/relax", "calc2"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        files.append(tmp_path / folder / "POSCAR")
        write(files[-1], make_atoms(4), format="vasp")
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert main(["import", *map(str, files), "--output", first]) == 0
    names = ["calc1/relax/POSCAR#0", "calc2/relax/POSCAR#0", "calc2/POSCAR#0"]
    assert open_dataset(first).identifiers == names
    # A file that comes later is told apart from those that are there.
    (tmp_path / "calc3" / "calc2").mkdir(parents=True)
    write(tmp_path / "calc3" / "calc2" / "POSCAR", make_atoms(8), format="vasp")
    assert main(["append", first, str(tmp_path / "calc3" / "calc2" / "POSCAR"), "--output", second]) == 0
    assert open_dataset(second).identifiers == [*names, "POSCAR#0"]
    late, third = tmp_path / "calc4" / "calc2" / "POSCAR", str(tmp_path / "third")
    late.parent.mkdir(parents=True)
    write(late, make_atoms(2), format="vasp")
    assert main(["append", second, str(late), "--output", third]) == 0
    assert open_dataset(third).identifiers[-1] == "calc4/calc2/POSCAR#0"
    capsys.readouterr()
    assert "is in" in failing(capsys, "append", third, files[0], "--output", tmp_path / "fourth")
    assert "given twice" in failing(capsys, "import", files[0], files[0], "--output", tmp_path / "twice")


def test_append_split_duplicates(tmp_path, recipe, make_atoms, capsys):
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    assert main(["build", str(recipe), "--output", first, "--workers", "1"]) == 0
    write(tmp_path / "frame.extxyz", make_atoms(8))
    atoms = make_atoms(8)
    atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    write(tmp_path / "turned.extxyz", atoms)
    files = [str(tmp_path / name) for name in ("frame.extxyz", "turned.extxyz")]
    assert main(["append", first, *files, "--output", second, "--note", "mine"]) == 0
    assert "11 configurations" in capsys.readouterr().out
    assert main(["verify", second]) == 0
    assert main(["duplicates", second]) == 0
    assert "0 pairs" in capsys.readouterr().out
    assert main(["split", second, "--output", third, "--phase", "sc", "--trajectory-fraction", "0.0"]) == 0
    assert "5 to train on" in capsys.readouterr().out
    assert set(open_dataset(third).splits) == {"train", "held-out-phase"}
    assert main(["duplicates", third, "--tolerance", "0.01"]) == 0


def test_duplicates_across_splits_are_named(tmp_path, make_record, capsys):
    records = [make_record(0, 8, split="train"), make_record(0, 8, "pa3", split="held-out-phase")]
    records += [make_record(i, 8, split=("train", "held-out-density")[i % 2], trajectory="run-1") for i in (5, 6)]
    write_dataset(tmp_path / "set", records)
    assert main(["duplicates", str(tmp_path / "set")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "bcc-0 and pa3-0: 0.0000 bohr apart, in train and held-out-phase"
    assert lines[1].startswith("run-1: a trajectory")
    assert lines[2].startswith("1 pairs within 0.02 bohr across splits, 1 trajectories")
    assert "'nothing'" in failing(
        capsys, "split", tmp_path / "set", "--output", tmp_path / "x", "--trajectory", "nothing"
    )
    assert "give 0 to 1" in failing(
        capsys, "split", tmp_path / "set", "--output", tmp_path / "x", "--trajectory-fraction", "2"
    )
    assert "tolerance" in failing(capsys, "duplicates", tmp_path / "set", "--tolerance", "3")


def test_bad_input_gives_one_sentence(tmp_path, frames, recipe, capsys):
    assert "no such file" in failing(capsys, "info", tmp_path / "none.extxyz")
    assert "frame 1" in failing(capsys, "info", frames)
    assert "frame 1" in failing(capsys, "plot", frames, "--output", tmp_path / "x.png")
    assert "manifest.json" in failing(capsys, "info", tmp_path)
    assert "manifest.json" in failing(capsys, "verify", tmp_path)
    assert "no such recipe" in failing(capsys, "build", tmp_path / "none.toml", "--output", tmp_path / "set")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert "already exists" in failing(capsys, "import", frames, "--skip-bad", "--output", tmp_path / "taken")
    recipe.write_text(recipe.read_text().replace("r_s", "rs"))
    assert "'r_s'" in failing(capsys, "build", recipe, "--output", tmp_path / "set")
    assert not (tmp_path / "set").exists()
    assert not (tmp_path / "x.png").exists()


def test_a_full_disk_gives_one_sentence(tmp_path, recipe, monkeypatch, capsys):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards.ShardWriter, "write", full)
    assert main(["build", str(recipe), "--output", str(tmp_path / "set"), "--workers", "1"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("fnqs-data: no space left on device; free some space")
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]


def test_a_truly_full_disk_gives_one_sentence(tmp_path, frames):
    # A limit on the size of files makes the C++ writer itself fail, as a full disk would.
    program = (
        "import resource, signal, sys; from fnqs_data.commands import main; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9)); "
        f"sys.exit(main(['import', {str(frames)!r}, '--skip-bad', '--output', {str(tmp_path / 'set')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("fnqs-data: ")
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["frames.extxyz"]


def test_what_is_not_read_is_told_once(tmp_path, make_atoms, capsys):
    atoms = [make_atoms(8, energy=-0.5 * 8 * units.Hartree) for _ in range(3)]
    for frame in atoms:
        frame.info["mace_energy"] = -3.0
    path = tmp_path / "frames.xyz"
    write(path, atoms, format="extxyz")
    assert main(["info", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "not read: mace_energy (3 frames); --energy-key" in printed.err
    assert "energies of 3 frames, forces of 3, stresses of 0" in printed.out
    folder = tmp_path / "set"
    assert main(["import", str(path), "--output", str(folder), "--energy-key", "mace_energy"]) == 2
    assert "too high" in capsys.readouterr().err
    assert main(["import", str(path), "--output", str(folder)]) == 0
    assert open_dataset(folder)[0].energy_per_atom == pytest.approx(-0.5, abs=1e-12)


def test_the_help_lists_what_is_recognised(capsys):
    for command in ("info", "import"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = capsys.readouterr().out
        for name in ("ref_energy", "virials", "dft_forces", "--energy-key", "--format", "vasp-xdatcar", "i-pi"):
            assert name in text


def test_versions_and_unknown_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for name in ("fnqs", "ase", "numpy", "jax", "python"):
        assert any(line.split()[0] == name for line in printed.splitlines())
    assert "--colour" in failing(capsys, "info", "x.xyz", "--colour")
    assert "COMMAND" in failing(capsys)


def test_an_interrupted_build_says_that_it_goes_on(tmp_path, recipe, monkeypatch, capsys):
    def stop(self, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(shards.ShardWriter, "write", stop)
    assert main(["build", str(recipe), "--output", str(tmp_path / "set"), "--workers", "1"]) == 130
    assert "goes on from the finished shards" in capsys.readouterr().err


def test_signs_of_life(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_PAUSE", 0.0)
    assert list(progress.shown(iter("abc"), "x.xyz")) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "fnqs-data: reading x.xyz: 3 frames"
    monkeypatch.undo()
    assert list(progress.shown(iter("abc"), "x.xyz")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""  # what is read at once needs none


@pytest.mark.parametrize(
    "command", ["build", "info", "import", "append", "split", "duplicates", "download", "verify", "plot"]
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "usage: fnqs-data" in capsys.readouterr().out
