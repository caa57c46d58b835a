"""Energies of one crystal with its spins ordered in several ways: unrestricted Hartree-Fock, and CCSD(T) on it (PySCF).

    pip install pyscf
    python tests/benchmarks/magnetic_orders.py bcc:16:2.6588:2x2x2 --waves 2,0,0 1,1,1 1,0,0 1,1,0 --basis cc-pvdz
    python tests/benchmarks/magnetic_orders.py bcc:16:2.6588:2x2x2 --waves 2,0,0 1,1,1 --correlated

A crystal is written as for crystals.py. An order is a wave of spins, up where cos(G . r - pi/4) > 0, G in reciprocal
vectors of the cell: in bcc of 2 x 2 x 2 cells 2,0,0 alternates from first neighbour to first neighbour, 1,1,1 between
second neighbours. Ha per atom at Gamma, exxdiv="ewald", integrals by density fitting.
"""

from __future__ import annotations

import argparse

import numpy as np
from crystals import crystal
from pyscf.pbc import cc, gto, scf  # pyright: ignore[reportMissingImports]  the extra `reference`

DISCARDED = 0.04
"""Diffuse primitives with a smaller exponent (1/bohr^2) are left out: they make the basis linearly dependent."""


def main() -> None:
    """Print one line for every order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystal", metavar="PHASE:N:R_S[:AxBxC]")
    parser.add_argument("--waves", nargs="+", required=True, metavar="H,K,L")
    parser.add_argument("--basis", default="cc-pvdz")
    parser.add_argument("--correlated", action="store_true", help="CCSD and the perturbative triples as well: minutes")
    options = parser.parse_args()
    configuration = crystal(options.crystal)
    vectors, protons = np.asarray(configuration.cell), np.asarray(configuration.protons)
    cell = gto.Cell()
    cell.unit, cell.a, cell.atom = "B", vectors, [("H", tuple(proton)) for proton in protons]
    cell.basis, cell.exp_to_discard, cell.verbose = options.basis, DISCARDED, 0
    cell.build()
    for wave in options.waves:
        phases = 2 * np.pi * protons @ np.linalg.inv(vectors) @ np.array([int(part) for part in wave.split(",")])
        up = np.cos(phases - np.pi / 4) > 0
        density = np.zeros((2, cell.nao, cell.nao))
        for spin, first in zip(np.where(up, 0, 1), cell.aoslice_by_atom()[:, 2], strict=True):
            density[spin, first, first] = 1
        field = scf.UHF(cell, exxdiv="ewald").density_fit()
        field.kernel(dm0=density)
        if not field.converged:
            print(f"{wave}: Hartree-Fock did not converge", flush=True)
            continue
        number = len(protons)
        text = f"{wave} {options.basis}: HF {field.e_tot / number:.6f}, <S^2> {field.spin_square()[0]:.2f}"
        if options.correlated:
            clusters = cc.UCCSD(field)
            clusters.kernel()
            doubles = clusters.e_tot / number
            text += f", CCSD {doubles:.6f}, CCSD(T) {doubles + clusters.ccsd_t() / number:.6f}"
        print(text, flush=True)


if __name__ == "__main__":
    main()
