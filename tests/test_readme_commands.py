"""Commands in the READMEs are ones that the programs understand."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "readme_commands.py"


def load():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readme_commands = load()


@pytest.mark.parametrize("file", readme_commands.readmes(), ids=lambda file: file.parent.name)
def test_every_command_of_a_readme_is_understood(file):
    found = list(readme_commands.commands(file))
    assert found or file.parent.name == "fnqs"
    assert [(one.text, fault) for one in found if (fault := readme_commands.find_fault(one)) is not None] == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("fnqs-train configs/quickstart.toml --set sampling.walkers=3", "unknown key sampling.walkers"),
        ("fnqs-train configs/quickstart.toml --sets steps=3", "unrecognized arguments: --sets"),
        ("timeout 540 fnqs-train configs/quick.toml --resume  # again", "configs/quick.toml does not exist"),
        ("srun -n 2 fnqs-evaluate energies foundation", "arguments are required: --configurations"),
        ("X=1 fnqs-data plot set --output a.png && fnqs-data bild r.toml", "invalid choice: 'bild'"),
        ("python tests/benchmarks/phases.py --seconds 5 --size 3", "phases.py has no option --size"),
        ("python tests/benchmarks/phase.py", "tests/benchmarks/phase.py does not exist"),
        ('pip install ".[test,cuda]"', "no extra cuda"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(line, fault):
    found = [readme_commands.Command("x", words, True) for words in readme_commands.simple_commands(line)]
    faults = [text for one in found if (text := readme_commands.find_fault(one)) is not None]
    assert len(faults) == 1
    assert fault in faults[0]


def test_placeholders_of_a_command_in_the_text_are_no_faults():
    (words,) = readme_commands.simple_commands("fnqs-data append SET FILE --output FOLDER --skip-bad")
    assert readme_commands.find_fault(readme_commands.Command("x", words, False)) is None
    (words,) = readme_commands.simple_commands("fnqs-data append SET --output FOLDER --skip")
    assert "no option --skip" in readme_commands.find_fault(readme_commands.Command("x", words, False))
