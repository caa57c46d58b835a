"""The direction of imports: between the four packages, and between the rooms of each."""

import ast
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "fnqs": "fnqs",
    "fnqs_data": "datasets/fnqs_data",
    "fnqs_train": "train/fnqs_train",
    "fnqs_eval": "eval/fnqs_eval",
}
ORDER = list(PACKAGES)
"""A package imports from itself and from those before it."""


HOUSES = (*ORDER, "fnqs_data.readers")
"""Packages that are divided into rooms."""


def modules(package: str) -> dict[str, Path]:
    """Files of a package by their module names."""
    top, *inside = package.split(".")
    folder = ROOT.joinpath(PACKAGES[top], *inside)
    found = {}
    for file in sorted(folder.rglob("*.py")):
        parts = (package, *file.relative_to(folder).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = file
    return found


def imports(file: Path) -> set[str]:
    """Modules of ours that a file imports when it is loaded or run, but for type checkers."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    hidden = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] in PACKAGES}


def room(module: str, package: str, known: dict[str, Path]) -> str:
    """The room that a module is in; a module at the top of its package is a room by itself."""
    parts = module.removeprefix(package).strip(".").split(".")
    inside = f"{package}.{parts[0]}"
    return inside if parts[0] and inside in known else package


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_from_those_before_it_only(package):
    allowed = ORDER[: ORDER.index(package) + 1]
    wrong = {
        f"{module} imports {name}"
        for module, file in modules(package).items()
        for name in imports(file)
        if name.split(".")[0] not in allowed
    }
    assert not wrong


@pytest.mark.parametrize("package", HOUSES)
def test_rooms_do_not_import_each_other_in_a_circle(package):
    known = modules(package)
    arrows: dict[str, set[str]] = {}
    for module, file in known.items():
        here = room(module, package, known)
        there = {room(name, package, known) for name in imports(file) if f"{name}.".startswith(f"{package}.")}
        arrows.setdefault(here, set()).update(there - {here, package})
    assert len(arrows) > 5
    TopologicalSorter(arrows).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("package", ORDER)
def test_every_room_says_what_it_is_for_and_is_packaged(package):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    rooms = {name: file for name, file in modules(package).items() if file.name == "__init__.py"}
    for name, file in rooms.items():
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file
        assert name in settings["packages"]
        assert ROOT / settings["package-dir"][name] == file.parent
    assert {file.parent for file in (ROOT / PACKAGES[package]).rglob("*.py")} == {
        file.parent for file in rooms.values()
    }
