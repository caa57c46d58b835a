"""A calculator for ASE: energies of a trained model in ASE's units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes

from fnqs.configuration import make_configuration
from fnqs.errors import InputError
from fnqs_eval.model import Model


class FoundationCalculator(Calculator):
    """Energy (eV) of periodic hydrogen, zero-shot, with its statistical error as `results["energy_error"]` (eV).

    Two energies differ by noise: compare them with their errors in mind. There are no forces yet.

    Args:
        model: from `load_model`.
        error: standard error of E/N, Ha per atom, at which sampling stops.
        walkers: of each configuration.
        seed: of walkers and moves.
        twist: fractions of the reciprocal lattice vectors, of both spins.
    """

    implemented_properties: Sequence[str] = ("energy",)

    def __init__(
        self, model: Model, *, error: float = 1e-3, walkers: int = 64, seed: int = 0, twist=(0.0, 0.0, 0.0), **rest: Any
    ):
        super().__init__(**rest)
        self._model, self._twist = model, twist
        self._settings = {"error": error, "walkers": walkers, "seed": seed}

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes=all_changes
    ) -> None:
        """Sample the present positions.

        Raises:
            InputError: atoms other than hydrogen, or a cell that is not periodic in three directions.
        """
        super().calculate(atoms, list(properties), system_changes)
        if self.atoms is None:
            raise InputError("the calculator has no atoms")
        if set(self.atoms.get_chemical_symbols()) != {"H"} or not np.all(self.atoms.pbc):
            raise InputError("the calculator is for hydrogen in a cell that is periodic in three directions")
        configuration = make_configuration(
            np.asarray(self.atoms.cell) / units.Bohr, self.atoms.positions / units.Bohr, self._twist
        )
        [found] = self._model.energies(configuration, **self._settings)
        scale = len(self.atoms) * units.Hartree
        self.results = {"energy": found.energy_per_atom * scale, "energy_error": found.error_per_atom * scale}
