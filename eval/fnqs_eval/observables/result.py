"""Observables of one configuration: numbers with their units and errors, averages over twists, JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fnqs_eval.energies.twists import TwistSet, twist_average


@dataclass(frozen=True)
class Quantity:
    """A number or an array with its unit.

    Attributes:
        unit: in words.
        values: a float or an array.
        errors: standard errors of the same shape; None where there are none.
    """

    unit: str
    values: Any
    errors: Any = None


@dataclass(frozen=True, kw_only=True)
class ObservablesResult:
    """What was measured of one configuration at one twist, or averaged over twists.

    Attributes:
        identifier: the configuration's name in its file or data set.
        number: protons N.
        density_parameter: r_s, bohr.
        volume: of the cell, bohr^3.
        phase: name of its phase.
        twist: fractions of the reciprocal lattice vectors; None for an average.
        quantities: by name: scalars, stress, forces.
        curves: by name: functions of distance and wave vector; empty where they were not asked for.
        finite_size: corrections of E/N by several recipes, see `finite_size.FiniteSize`.
        acceptance: fraction of accepted moves.
        weight: of this twist in the average; None for a single twist.
        flags: what makes the numbers less trustworthy.
    """

    identifier: str
    number: int
    density_parameter: float
    volume: float
    phase: str
    twist: tuple[float, float, float] | None
    quantities: dict[str, Quantity]
    curves: dict[str, Quantity] = field(default_factory=dict)
    finite_size: list[dict[str, Any]] = field(default_factory=list)
    acceptance: float = math.nan
    weight: float | None = None
    flags: list[str] = field(default_factory=list)

    def value(self, name: str) -> tuple[float, float]:
        """Return a scalar quantity with its error, NaN where it was not measured."""
        found = self.quantities.get(name)
        if found is None:
            return math.nan, math.nan
        return float(found.values), math.nan if found.errors is None else float(found.errors)


def to_json(result: ObservablesResult) -> dict[str, Any]:
    """Make JSON values of a result; numbers that are not finite become null."""
    return _plain(dataclasses.asdict(result))


def from_json(values: Mapping[str, Any]) -> ObservablesResult:
    """Make a result of its JSON object."""
    known = {name: values[name] for name in ObservablesResult.__dataclass_fields__ if name in values}
    known["twist"] = None if known.get("twist") is None else tuple(known["twist"])
    for group in ("quantities", "curves"):
        known[group] = {name: _quantity(**own) for name, own in known.get(group, {}).items()}
    if known.get("acceptance") is None:
        known["acceptance"] = math.nan
    return ObservablesResult(**known)


def average(members: Sequence[ObservablesResult], twists: TwistSet) -> ObservablesResult:
    """Mean over the twists of one configuration; what belongs to a single twist (momenta, tails) is left out."""
    first = members[0]

    def joined(group: str) -> dict[str, Quantity]:
        own = {}
        for name, example in getattr(first, group).items():
            parts = [getattr(member, group)[name] for member in members]
            if name in SINGLE:
                continue
            if example.errors is None:
                values = np.tensordot(twists.weights, np.array([np.asarray(p.values) for p in parts]), 1)
                own[name] = Quantity(example.unit, values if values.ndim else float(values), None)
                continue
            shape = np.shape(example.values)
            values, errors = (
                np.reshape([np.asarray(getattr(part, side)) for part in parts], (len(parts), -1))
                for side in ("values", "errors")
            )
            pairs = [twist_average(*columns, twists) for columns in zip(values.T, errors.T, strict=True)]
            means, errors = (np.array(column).reshape(shape) for column in zip(*pairs, strict=True))
            own[name] = Quantity(example.unit, means if shape else float(means), errors if shape else float(errors))
        return own

    return dataclasses.replace(
        first,
        twist=None,
        weight=float(np.sum(twists.weights)),
        quantities=joined("quantities"),
        curves=joined("curves"),
        finite_size=[],
        acceptance=float(np.mean([member.acceptance for member in members])),
        flags=[
            f"mean over twists: {twists.description}; the same twist for both spins",
            *dict.fromkeys(flag for member in members for flag in member.flags),
        ],
    )


SINGLE = ("momentum", "occupation", "force_tail", "bare_tail", "roughness")
"""Quantities of single twists, which have no mean."""


def _quantity(unit: str, values: Any, errors: Any) -> Quantity:
    return Quantity(unit, _numbers(values), None if errors is None else _numbers(errors))


def _numbers(values: Any) -> Any:
    """Null is not a number, and lists are arrays."""
    if isinstance(values, list):
        return np.array(values, np.float64)
    return math.nan if values is None else float(values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
