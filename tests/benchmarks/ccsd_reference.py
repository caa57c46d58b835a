"""All-electron CCSD(T) of every configuration of a recipe, in the same cell, twist and Ewald convention (PySCF).

    pip install pyscf
    python tests/benchmarks/ccsd_reference.py configs/datasets/cells_n8.toml cc-pvdz cc-pvtz

Prints Ha per atom for every basis: restricted Hartree-Fock with exxdiv="ewald", integrals by density fitting, then
CCSD and the perturbative triples. Gamma only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from pyscf.pbc import cc, gto, scf  # pyright: ignore[reportMissingImports]  the extra `reference`

from fnqs_data.generate.build import cached_dataset

DISCARDED = 0.1
"""Diffuse primitives with a smaller exponent (1/bohr^2) are left out: dense cells make them linearly dependent."""


def main(recipe: str, *bases: str) -> None:
    """Print one line for every configuration and basis."""
    for record in cached_dataset(Path(recipe)):
        configuration = record.configuration
        if np.any(np.asarray(configuration.twist)):
            continue
        for basis in bases or ("cc-pvdz",):
            cell = gto.Cell()
            cell.unit = "B"
            cell.a = np.asarray(configuration.cell)
            cell.atom = [("H", tuple(position)) for position in np.asarray(configuration.protons)]
            cell.basis, cell.exp_to_discard, cell.verbose = basis, DISCARDED, 0
            cell.build()
            field = scf.RHF(cell, exxdiv="ewald").density_fit()
            field.kernel()
            if not field.converged:
                print(f"{record.identifier} {basis}: Hartree-Fock did not converge")
                continue
            clusters = cc.RCCSD(field)
            clusters.kernel()
            triples = clusters.ccsd_t()
            mean_field, doubles = field.e_tot / record.n_atoms, clusters.e_tot / record.n_atoms
            print(
                f"{record.identifier} {basis} ({cell.nao} orbitals): HF {mean_field:.6f}, CCSD {doubles:.6f}, "
                f"CCSD(T) {doubles + triples / record.n_atoms:.6f} Ha per atom",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
