"""What surrounds every command: encodings, users without a home, missing devices, signals, faults and versions."""

import os
import pwd
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import jax
import pytest

from fnqs.cli import home, start
from fnqs.cli.command_line import run_command
from fnqs.cli.devices import missing_devices
from fnqs.cli.versions import versions
from fnqs.errors import InputError

FRAME = """2
Lattice="1.408 0 0 0 1.408 0 0 0 1.408" Properties=species:S:1:pos:R:3 pbc="T T T"
H 0.0 0.0 0.0
H 0.704 0.704 0.704
"""
COMMANDS = {
    "fnqs-train": "from fnqs_train.entry import train as main",
    "fnqs-finetune": "from fnqs_train.entry import finetune as main",
    "fnqs-evaluate": "from fnqs_eval.entry import evaluate as main",
    "fnqs-data": "from fnqs_data.entry import data as main",
}


def started(program: str, *arguments: str, python: tuple[str, ...] = (), **environment: str) -> subprocess.Popen:
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(
        [sys.executable, *python, "-c", program, *arguments],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def command(name: str, *arguments: str, **options) -> subprocess.Popen:
    return started(f"import sys; {COMMANDS[name]}; sys.exit(main())", *arguments, **options)


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "var/N 1e-3 Ha^2, a = 3 A, 2 +- 1, Gamma, cafe, ?"),
        ("latin-1", "var/N 1e-3 Ha², a = 3 Å, 2 ± 1, Gamma, café, ?"),
        ("utf-8", "var/N 1e-3 Ha², a = 3 Å, 2 ± 1, Γ, café, 水"),
    ],
)
def test_every_encoding_takes_every_text(encoding, expected):
    text = "var/N 1e-3 Ha², a = 3 Å, 2 ± 1, Γ, café, 水"
    program = (
        f"import sys; from fnqs.cli.command_line import run_command;"
        f"sys.exit(run_command('fnqs-x', lambda: print({text!r}, file=sys.stderr) or print({text!r})))"
    )
    process = started(program, PYTHONIOENCODING=encoding)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.decode(encoding) == err.decode(encoding) == expected + "\n"


def test_a_file_name_that_is_not_in_the_encoding_is_printed():
    program = (
        "import os, sys; from fnqs.cli.command_line import run_command; from fnqs.errors import InputError\n"
        "def body(): raise InputError(os.fsdecode(b'caf\\xe9.xyz') + ': no such file')\n"
        "sys.exit(run_command('fnqs-x', body))"
    )
    assert ended(started(program, PYTHONIOENCODING="utf-8")) == (2, "", "fnqs-x: caf?.xyz: no such file\n")


@pytest.mark.parametrize("python", [(), ("-O",), ("-OO",)])
def test_files_are_read_without_asserts_too(tmp_path, python):
    """ASE reads the first line of a frame inside an assert."""
    (tmp_path / "two.xyz").write_text(FRAME)
    variable = {} if python else {"PYTHONOPTIMIZE": "1"}
    code, out, err = ended(command("fnqs-data", "info", str(tmp_path / "two.xyz"), python=python, **variable))
    assert (code, err) == (0, "")
    assert "1 frames, N 2 to 2, r_s 1.3101 to 1.3101 bohr" in out


def test_only_python_s_own_options_are_taken_out():
    given = ["-X", "utf8", "-O", "-c", "program", "-O"]
    assert start.without_optimisation(["-O", "/bin/fnqs-train", "-O"]) == ["/bin/fnqs-train", "-O"]
    assert start.without_optimisation(given[2:]) == ["-c", "program", "-O"]


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A user id without a passwd entry, whose folder for temporary files is the test's."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "FNQS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"fnqs-uid{os.getuid()}"


def test_a_user_without_a_passwd_entry_gets_a_home_and_a_name(nobody, monkeypatch):
    import getpass

    with pytest.raises(RuntimeError):
        Path.home()
    home.have_a_home()
    assert Path.home() == nobody
    assert nobody.stat().st_mode & 0o777 == 0o700
    assert getpass.getuser() == f"uid{os.getuid()}"
    monkeypatch.delenv("HOME")
    home.have_a_home()  # the second command takes the same
    assert Path.home() == nobody


def test_a_home_of_someone_else_is_refused(nobody):
    nobody.mkdir(mode=0o777)
    nobody.chmod(0o777)
    with pytest.raises(InputError, match="others can write there; set HOME, or FNQS_CACHE"):
        home.have_a_home()


def test_a_home_that_cannot_be_written_does_not_hold_the_cache(nobody, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith("/proc"))
    home.have_a_home()
    assert os.environ["FNQS_CACHE"] == str(nobody / "fnqs")
    monkeypatch.setenv("FNQS_CACHE", "chosen")
    home.have_a_home()
    assert os.environ["FNQS_CACHE"] == "chosen"


def test_devices_that_are_not_there_are_one_sentence(tmp_path):
    (tmp_path / "two.extxyz").write_text(FRAME)
    given = ["energies", "foundation", "--configurations", str(tmp_path / "two.extxyz")]
    for platform in ("cuda", "nonsense"):
        code, _, err = ended(command("fnqs-evaluate", *given, JAX_PLATFORMS=platform))
        assert code == 2
        assert err.startswith(f"fnqs-evaluate: JAX_PLATFORMS={platform}: JAX finds no such device here")
        assert err.count("\n") == 1


def test_devices_that_are_there_are_no_excuse(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert jax.devices()
    assert missing_devices() is None


def test_a_fault_of_the_program_is_one_sentence_with_its_traceback_in_a_file(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run_command("fnqs-x", lambda: 1 // 0) == 1
    err = capsys.readouterr().err
    assert err.startswith("fnqs-x: a fault of the program (ZeroDivisionError: ")
    assert err.count("\n") == 1
    (file,) = tmp_path.glob("fnqs-x-fault-*.txt")
    assert err.endswith(f"please report it with the file {file}\n")
    text = file.read_text()
    assert "Traceback (most recent call last)" in text
    assert "1 // 0" in text
    assert versions() in text
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert run_command("fnqs-x", lambda: 1 // 0) == 1
    assert "its details could not be written (No such file or directory)" in capsys.readouterr().err


def test_memory_that_a_device_lacks_is_no_fault(capsys):
    def body():
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nmore")

    assert run_command("fnqs-x", body) == 2
    assert capsys.readouterr().err.startswith("fnqs-x: there is not enough memory (RESOURCE_EXHAUSTED: Out of memory")


@pytest.mark.parametrize("module", ["fnqs.cli.start", "numpy"])
@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_libraries_are_imported(name, module):
    """The signal comes as soon as the first module of all, or a library that takes long, is being imported."""
    program = (
        "import os, signal, sys\n"
        "class Waits:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == '{module}': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Waits())\n"
        f"{COMMANDS[name]}\n"
        f"assert '{module}' not in sys.modules\n"
        "sys.exit(main())"
    )
    assert ended(started(program)) == (130, "", f"{name}: interrupted\n")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
def test_signals_end_a_command_with_a_sentence(name, capsys):
    number = getattr(signal, name)
    assert run_command("fnqs-x", lambda: signal.raise_signal(number)) == 130
    assert capsys.readouterr().err == f"fnqs-x: stopped by {name}\n"
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_hangup_that_nohup_has_switched_off_stays_so(capsys):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_command("fnqs-x", lambda: signal.raise_signal(signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["fnqs-train", "fnqs-finetune", "fnqs-evaluate"])
def test_versions_are_told_even_where_nothing_can_be_imported(name, monkeypatch, capsys):
    code, out, err = ended(
        started(f"import sys; sys.modules['jax'] = None; {COMMANDS[name]}; sys.exit(main())", "--version")
    )
    assert (code, err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    for package in ("fnqs", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "ase"):
        assert lines[package] == version(package)
    assert lines["python"].startswith("{}.{}.{}".format(*sys.version_info))
    assert "cores" in lines["platform"]


def test_warnings_take_one_line():
    program = (
        "import sys, warnings; from fnqs.cli.door import enter\n"
        "sys.exit(enter('fnqs-x', lambda: lambda: warnings.warn('checkpoint 3 is damaged', stacklevel=1)))"
    )
    assert ended(started(program)) == (0, "", "fnqs-x: checkpoint 3 is damaged\n")


def test_work_goes_on_when_its_reader_has_left():
    """The reader closes the pipe after the first of a thousand lines; the last step still happens."""
    program = (
        "import sys; from fnqs.cli.text_streams import lasting; from fnqs.cli.command_line import run_command\n"
        "def body():\n"
        "    stream = lasting(sys.stdout)\n"
        "    for _ in range(1000): print('x' * 1000, file=stream, flush=True)\n"
        "    print('saved', file=sys.stderr)\n"
        "sys.exit(run_command('fnqs-x', body))"
    )
    process = started(program)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"saved\n"
    process.stderr.close()
    assert process.wait(timeout=60) == 0
