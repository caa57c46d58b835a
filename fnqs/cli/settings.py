"""TOML tables into frozen dataclasses and back: strict keys, errors as sentences, help from docstrings."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from fnqs.errors import InputError

T = TypeVar("T")


def read_toml(path: str | os.PathLike) -> dict[str, Any]:
    """Read one TOML file into plain tables.

    Raises:
        InputError: there is no such file, or it is not UTF-8 text in TOML; the sentence names file and line.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the spelling of the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8; give a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None


def apply_overrides(table: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put `section.key=value` texts into nested tables; the value is TOML, or a bare word for a string.

    Raises:
        InputError: no "=", a value that is not TOML, or a key inside something that is not a table.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        names = [name.strip() for name in key.split(".")]
        if not equals or not all(names):
            raise InputError(f"--set {text}: write section.key=value, for instance --set optimizer.damping=1e-3")
        place = table
        for name in names[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {text}: {name} is a value, not a section")
        place[names[-1]] = _toml_value(value.strip(), text)


def from_table(kind: type[T], table: dict[str, Any], where: str) -> T:
    """Build a (nested) dataclass from TOML tables; integers serve as floats, nothing else is converted.

    Args:
        kind: the dataclass; its defaults fill what the table leaves out.
        table: the tables of a TOML file.
        where: what the user knows the tables by, usually the file's name; it starts every complaint.

    Raises:
        InputError: an unknown key (with the nearest and all allowed ones), a missing one, a wrong type.
    """
    _check_keys(kind, table, where, "", _all_keys(kind))
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        key = place.rstrip("`").lstrip(".")
        reason = reason[0].lower() + reason[1:]
        choices = _choices(kind, key)
        cure = f"; choose one of {', '.join(map(repr, choices))}" if choices else ""
        raise InputError(f"{where}: {key or 'the file'}: {reason}{cure}") from None


Range = tuple[Callable[[Any], bool], str]
"""A condition on a value, and the words that say it after "must be"."""

POSITIVE: Range = (lambda x: 0 < x < float("inf")), "above 0"
EVEN_N: Range = (lambda x: x >= 2 and x % 2 == 0), "even and 2 or more"
PLAIN_NAME: Range = (
    (lambda x: bool(x) and Path(x).name == x and not x.startswith(".")),
    'a plain folder name without "/"',
)


def at_least(bound: float) -> Range:
    """Make the range of finite numbers from a bound on."""
    return (lambda x: bound <= x < float("inf")), f"{bound} or more"


def check_ranges(values: Mapping[str, Any], ranges: Mapping[str, Range], where: str) -> None:
    """Check values by their names; a value that is None or has no range is not checked.

    Raises:
        InputError: the first value that is out of its range.
    """
    for key, value in values.items():
        valid, wanted = ranges.get(key, (None, ""))
        if valid is not None and value is not None and not valid(value):
            raise InputError(f"{where}: {key} is {value!r} but must be {wanted}")


def to_table(settings: Any) -> dict[str, Any]:
    """Return the nested tables of a dataclass, every key resolved; keys that are None are left out."""
    result = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            value = to_table(value)
        if value is not None:
            result[field.name] = list(value) if isinstance(value, tuple) else value
    return result


def to_toml(table: dict[str, Any]) -> str:
    """Write tables of numbers, texts, truth values, lists and tables as TOML that reads back equal."""
    lines: list[str] = []
    _write_table(table, (), lines)
    return "\n".join(lines).strip() + "\n"


def describe(kind: type, prefix: str = "") -> str:
    """All keys of a dataclass with default and meaning, in TOML order, for --help.

    The meanings come from the "Attributes:" part of the docstrings.
    """
    lines, sections = [], []
    hints = get_type_hints(kind)
    meanings = attribute_meanings(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            name = f"{prefix}{field.name}"
            sections.append(f"\n[{name}]\n{describe(hints[field.name], name + '.')}")  # type: ignore[arg-type]
            continue
        if field.default is dataclasses.MISSING:
            shown = f"{field.name} (required)"
        elif field.default is None:
            shown = f"{field.name} (unset)"
        else:
            shown = f"{field.name} = {_format(field.default)}"
        choices = _choices(kind, field.name)
        listed = f" ({' | '.join(choices)})" if choices else ""
        lines.append(f"  {shown:<34} {meanings.get(field.name, '')}{listed}")
    return "\n".join(lines + sections)


def attribute_meanings(kind: type) -> dict[str, str]:
    """Read the entries of a docstring's "Attributes:" part, each joined to one line."""
    _, _, part = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    meanings: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(part).splitlines():
        if match := re.match(r"(\w+): (.*)", line):
            name, text = match.groups()
            meanings[name] = text
        elif name and line.startswith(" "):
            meanings[name] += " " + line.strip()
        else:
            break
    return {name: text.rstrip(".") for name, text in meanings.items()}


def _check_keys(kind: Any, table: dict[str, Any], where: str, prefix: str, everywhere: list[str]) -> None:
    hints = get_type_hints(kind)
    allowed = [field.name for field in dataclasses.fields(kind)]
    for key, value in table.items():
        if key not in allowed:
            near = _nearest(key, prefix, allowed, everywhere)
            hint = f"; did you mean {near}?" if near else ";"
            raise InputError(f"{where}: unknown key {prefix}{key}{hint} The keys here are {', '.join(allowed)}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise InputError(f"{where}: {prefix}{key} is a section, written [{prefix}{key}], not a value")
            _check_keys(hints[key], value, where, f"{prefix}{key}.", everywhere)


def _nearest(key: str, prefix: str, allowed: list[str], everywhere: list[str]) -> str:
    """Find what a wrong key may mean: the same one in another section, a similar or a longer one here."""
    elsewhere = [name for name in everywhere if name.rpartition(".")[2] == key]
    similar = difflib.get_close_matches(key, allowed, n=1) or [name for name in allowed if key in name]
    return " or ".join((elsewhere + [prefix + name for name in similar])[:2])


def _all_keys(kind: Any, prefix: str = "") -> list[str]:
    hints = get_type_hints(kind)
    keys = []
    for field in dataclasses.fields(kind):
        name, inner = prefix + field.name, hints[field.name]
        keys += _all_keys(inner, name + ".") if dataclasses.is_dataclass(inner) else [name]
    return keys


def _choices(kind: Any, key: str) -> tuple[str, ...]:
    for name in key.split("."):
        if not dataclasses.is_dataclass(kind):
            return ()
        kind = get_type_hints(kind).get(name)
    return get_args(kind) if get_origin(kind) is Literal else ()


def _toml_value(value: str, text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        if re.fullmatch(r"[A-Za-z_./~][\w./~+-]*", value):
            return value
        raise InputError(f"--set {text}: {value!r} is no TOML value; quote texts and bracket lists") from None
    if set(table) != {"value"}:
        raise InputError(f"--set {text}: give one value on one line")
    return table["value"]


def _write_table(table: dict[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    if path:
        lines.append(f"\n[{'.'.join(path)}]")
    lines += [f"{key} = {_format(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            _write_table(value, (*path, key), lines)


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[{', '.join(_format(item) for item in value)}]"
