"""A calculator for ASE: energies, forces and stress of a trained model in ASE's units."""

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
    """Energy (eV), forces (eV/angstrom) and stress (eV/angstrom^3, Voigt) of periodic hydrogen, zero-shot.

    Standard errors are in `results` too, as energy_error, forces_error and stress_error. Forces and stress are
    derivatives of the variational energy. All numbers differ by noise: compare them with their errors in mind, and stop
    a relaxation where forces reach theirs. Asked for the energy alone, it measures the energy alone, which is faster;
    that energy is then replaced when forces or stress are asked for.

    Args:
        model: from `load_model`.
        error: standard error of E/N, Ha per atom, at which sampling stops.
        walkers: of each configuration.
        seed: of walkers and moves.
        twist: fractions of the reciprocal lattice vectors, of both spins.
    """

    implemented_properties: Sequence[str] = ("energy", "forces", "stress")

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
        scale = len(self.atoms) * units.Hartree
        if not {"forces", "stress"} & set(properties):
            [found] = self._model.energies(configuration, **self._settings)
            self.results = {"energy": found.energy_per_atom * scale, "energy_error": found.error_per_atom * scale}
            return
        derivatives = "all" if "forces" in properties else "stress"
        [found] = self._model.observables(configuration, derivatives=derivatives, correlations=False, **self._settings)
        energy, error = found.value("energy")
        measured: dict[str, Any] = {"energy": energy * scale, "energy_error": error * scale}
        for name, unit in (("stress", units.Hartree / units.Bohr**3), ("forces", units.Hartree / units.Bohr)):
            if name in found.quantities:
                quantity = found.quantities[name]
                measured[name] = np.asarray(quantity.values) * unit
                measured[f"{name}_error"] = np.asarray(quantity.errors) * unit
        self.results = measured
