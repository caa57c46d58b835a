"""The recipe of a data set: a TOML file checked key by key before anything is built."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from fnqs.errors import InputError
from fnqs_data.generate.crystals import ATOMIC_CRYSTALS
from fnqs_data.generate.disordered import DISORDERED
from fnqs_data.generate.molecular import MOLECULAR_CRYSTALS

BENCHMARKS = ("molecule", "chain")
PHASES = (*ATOMIC_CRYSTALS, *MOLECULAR_CRYSTALS, *DISORDERED, *BENCHMARKS)

LARGEST_COUNT = 10_000_000

OLD_KEYS = {"density": "r_s"}
"""Keys that recipes had before, and their present names; both are read."""

Range = float | tuple[float, float]
"""A fixed value, or the ends of a uniform distribution."""


class Family(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[family]]` table: configurations of one phase.

    Attributes:
        phase: one of `PHASES`.
        count: how many configurations.
        number: the values of N.
        weight: share of each N, in the order of `number`; equal shares if empty.
        r_s: Wigner-Seitz radius, bohr.
        displacement: rms length of the thermal displacement of protons (molecules: of their centres), in r_s.
        temperature: K; of disordered phases, or of a crystal, whose displacement then follows from it (`thermal`).
        frames: of one trajectory of a disordered phase, many sweeps apart; with 1 every configuration has its own.
        strain: of a random volume-preserving kind, standard deviation of its diagonal entries.
        rotate: turn the whole configuration at random.
        twist: "gamma", "random" or three fractions of the reciprocal lattice vectors, each a number or a range.
        closest: smallest allowed distance of two protons, bohr.
        supercell: multiples of the conventional cell; without it the most compact supercells are used.
        bond: bond length of molecules, bohr; without it `molecular.bond_length`.
        bond_spread: standard deviation of the bond length, bohr.
        box: edge of the cube around a molecule, bohr.
        spacing: distance of neighbours in a chain, bohr.
        vacuum: width of the cell across a chain (and beyond its ends if open), bohr.
        open: a chain with ends instead of a periodic one.
    """

    phase: str
    count: int = 1
    number: list[int] = []
    weight: list[float] = []
    r_s: Range | None = None
    displacement: Range = 0.0
    temperature: Range | None = None
    frames: int = 1
    strain: float = 0.0
    rotate: bool = False
    twist: str | tuple[Range, Range, Range] = "gamma"
    closest: float = 0.9
    supercell: tuple[int, int, int] | None = None
    bond: Range | None = None
    bond_spread: float = 0.0
    box: float | None = None
    spacing: Range | None = None
    vacuum: float | None = None
    open: bool = False


class HeldOutWindows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[held_out]` table.

    Attributes:
        r_s: windows of the Wigner-Seitz radius, bohr.
        phases: names of phases.
        temperature: windows of temperature, K.
        trajectory_fraction: share of all trajectories; a configuration outside any counts as one.
    """

    r_s: list[tuple[float, float]] = []
    phases: list[str] = []
    temperature: list[tuple[float, float]] = []
    trajectory_fraction: float = 0.0


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole recipe file."""

    name: str
    family: list[Family]
    seed: int = 0
    note: str = ""
    held_out: HeldOutWindows = HeldOutWindows()


_COMMON = {"phase", "count", "rotate", "twist", "closest"}
_SPREAD = {"number", "weight", "r_s", "strain"}
_KEYS_OF_PHASE = {
    **{p: _COMMON | _SPREAD | {"displacement", "temperature", "supercell"} for p in ATOMIC_CRYSTALS},
    **{
        p: _COMMON | _SPREAD | {"displacement", "temperature", "supercell", "bond", "bond_spread"}
        for p in MOLECULAR_CRYSTALS
    },
    **{p: _COMMON | _SPREAD | {"temperature", "frames"} for p in DISORDERED},
    "molecule": _COMMON | {"bond", "box"},
    "chain": _COMMON | {"number", "spacing", "vacuum", "open"},
}
_NEEDED = {
    **{p: {"number", "r_s"} for p in (*ATOMIC_CRYSTALS, *MOLECULAR_CRYSTALS)},
    **{p: {"number", "r_s", "temperature"} for p in DISORDERED},
    "molecule": {"bond", "box"},
    "chain": {"number", "spacing", "vacuum"},
}


def read_recipe(path: str | os.PathLike) -> tuple[Recipe, str]:
    """Read and check a recipe file.

    Returns:
        the recipe and its text.

    Raises:
        InputError: naming the file, the table and the nearest known key or value.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such recipe file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the recipe cannot be read ({error})") from error
    try:
        return parse_recipe(text), text
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def parse_recipe(text: str) -> Recipe:
    """Check the text of a recipe; see `read_recipe`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"this is not valid TOML: {error}") from error
    _check_keys(table, set(Recipe.__struct_fields__), "the recipe")
    if isinstance(held_out := table.get("held_out"), dict):
        _take_old_keys(held_out, "[held_out]")
        _check_keys(held_out, set(HeldOutWindows.__struct_fields__), "[held_out]")
    families = table.get("family", [])
    for place, family in enumerate(families if isinstance(families, list) else []):
        if isinstance(family, dict):
            _take_old_keys(family, f"[[family]] {place + 1}")
            _check_family(family, f"[[family]] {place + 1}")
    try:
        recipe = msgspec.convert(table, Recipe)
    except msgspec.ValidationError as error:
        raise InputError(f"{error}") from error
    for place, family in enumerate(recipe.family):
        _check_values(family, f"[[family]] {place + 1} ({family.phase})")
    for phase in recipe.held_out.phases:
        _nearest(phase, PHASES, "[held_out] phase")
    if not 0 <= recipe.held_out.trajectory_fraction <= 1:
        raise InputError(f"[held_out]: trajectory_fraction = {recipe.held_out.trajectory_fraction}; give 0 to 1")
    if not recipe.family:
        raise InputError("the recipe has no [[family]] table; add at least one")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", recipe.name):
        raise InputError(f"name = {recipe.name!r}; use letters, digits, dots, dashes and underscores")
    if recipe.seed < 0:
        raise InputError(f"seed = {recipe.seed}; give a whole number that is not negative")
    return recipe


def _take_old_keys(table: dict[str, Any], where: str) -> None:
    """Give keys of earlier recipes their present names, in place."""
    for old, new in OLD_KEYS.items():
        if old in table and new in table:
            raise InputError(f"{where}: {old} is the old name of {new}; give one of them")
        if old in table:
            table[new] = table.pop(old)


def _check_family(family: dict[str, Any], where: str) -> None:
    _check_keys(family, set(Family.__struct_fields__), where)
    phase = family.get("phase")
    if not isinstance(phase, str):
        raise InputError(f"{where} has no phase; choose one of {', '.join(PHASES)}")
    _nearest(phase, PHASES, f"{where}: phase")
    for key in family:
        if key not in _KEYS_OF_PHASE[phase]:
            raise InputError(f"{where}: {key} means nothing for phase {phase}; remove it")
    if "displacement" in family and "temperature" in family:
        raise InputError(f"{where}: displacement and temperature both say how far protons stray; give one of them")
    missing = sorted(_NEEDED[phase] - set(family))
    if missing:
        raise InputError(f"{where}: phase {phase} needs {', '.join(missing)}")


def _check_keys(table: dict[str, Any], known: set[str], where: str) -> None:
    for key in table:
        _nearest(key, sorted(known), f"{where}: key")


def _nearest(word: str, known: tuple[str, ...] | list[str], what: str) -> None:
    """Raise, with the nearest known word, if a word is not known."""
    if word not in known:
        close = difflib.get_close_matches(word, known, n=1, cutoff=0.0)
        raise InputError(f"{what} {word!r} is unknown; did you mean {close[0]!r}?")


def _check_values(family: Family, where: str) -> None:
    """Raise for numbers that make no sense."""
    if not 1 <= family.count <= LARGEST_COUNT:
        raise InputError(f"{where}: count = {family.count}; give 1 to {LARGEST_COUNT}")
    if any(n < 2 or n % 2 for n in family.number) or (family.phase != "molecule" and not family.number):
        raise InputError(f"{where}: number = {family.number}; give even numbers of protons, two or more")
    if family.weight and (len(family.weight) != len(family.number) or min(family.weight) <= 0):
        raise InputError(f"{where}: weight needs one positive share for each entry of number")
    if not 1 <= family.frames <= 1000:
        raise InputError(f"{where}: frames = {family.frames}; give 1 to 1000")
    may_vanish = {"displacement"} if family.phase in DISORDERED else {"displacement", "temperature"}
    for key in ("r_s", "displacement", "temperature", "bond", "spacing"):
        value = getattr(family, key)
        if value is None:
            continue
        low, high = value if isinstance(value, tuple) else (value, value)
        if not low <= high or low < 0 or (low == 0 and key not in may_vanish) or high == float("inf"):
            raise InputError(f"{where}: {key} = {value}; give a positive value or [smallest, largest]")
    for key in ("box", "vacuum", "closest"):
        value = getattr(family, key)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{where}: {key} = {value}; give a positive length in bohr")
    for key, largest in (("strain", 0.3), ("bond_spread", 0.5)):
        value = getattr(family, key)
        if not 0 <= value <= largest:
            raise InputError(f"{where}: {key} = {value}; give a value from 0 to {largest}")
    if isinstance(family.twist, str) and family.twist not in ("gamma", "random"):
        raise InputError(f'{where}: twist = {family.twist!r}; give "gamma", "random" or three fractions')
    ranges = () if isinstance(family.twist, str) else family.twist
    if any(not -0.5 <= x <= 1 for r in ranges for x in (r if isinstance(r, tuple) else (r,))):
        raise InputError(
            f"{where}: twist = {list(ranges)}; fractions of the reciprocal lattice vectors lie between -0.5 and 1"
        )
    if family.supercell is not None and min(family.supercell) < 1:
        raise InputError(f"{where}: supercell = {list(family.supercell)}; give three positive whole numbers")
