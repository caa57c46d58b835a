"""What ASE's readers pass over in files of other programs: charged cells, units, outputs that break off."""

from __future__ import annotations

import re

from ase import Atoms

from fnqs.errors import InputError
from fnqs_data.readers.frame.isotopes import isotope_by_mass, set_isotopes

ELECTRONS = {
    "vasp-out": re.compile(r"NELECT\s*=\s*([\d.]+)"),
    "vasp-xml": re.compile(r'<i name="NELECT">\s*([\d.]+)'),
    "espresso-out": re.compile(r"number of electrons\s*=\s*([\d.]+)"),
}
"""Where programs state the number of electrons of the cell."""

ENDS = {"vasp-xml": "</modeling>", "vasp-out": "General timing and accounting", "espresso-out": "JOB DONE."}
"""What stands near the end of a complete output; ASE drops a last frame that is not whole without a word."""

SETTINGS = {"tot_charge": "its charge is", "tot_magnetization": "its magnetic moment is"}
"""What an input of Quantum ESPRESSO may ask for, and what that makes of the cell."""

VASP_ENERGY = "energy (VASP counts it from the reference atoms of its potentials, not from separated particles)"
XSF_FORCES = "forces (in Ha/Å or eV/Å, which XSF does not tell apart)"
XSF_ENERGY = "total energy (a comment)"


def check_text(form: str, text: str) -> None:
    """Refuse a file as a whole.

    Raises:
        InputError: with a sentence that does not name the file.
    """
    if form == "espresso-in":
        for name, clause in SETTINGS.items():
            found = re.search(rf"(?mi)^[^!\n]*\b{name}\s*=\s*([-+\d.eEdD]+)", text)
            if found and float(re.sub("[dD]", "e", found[1])) not in (
                0.0,
                -1.0 if name == "tot_magnetization" else 0.0,
            ):
                raise InputError(f"{clause} {found[1]}; fnqs knows neutral cells with unpolarised electrons only")
    if form == "cube":
        grids = [line.split()[0] for line in text.splitlines()[3:6] if line.split()]
        if any(grid.startswith("-") for grid in grids):
            raise InputError("its grid is negative, which means lengths in Å and which ASE does not know; give extxyz")


def check_frame(form: str, text: str, atoms: Atoms) -> None:
    """Correct or refuse a frame that ASE has read.

    Raises:
        InputError: with a sentence that does not name the file.
    """
    if (pattern := ELECTRONS.get(form)) and (found := pattern.search(text)):
        charge = len(atoms) - float(found[1])
        if abs(charge) > 0.01 and set(atoms.numbers) == {1}:
            raise InputError(f"its charge is {charge:g} ({found[1]} electrons); fnqs knows neutral cells only")
    if form in ("vasp-out", "vasp-xml") and atoms.calc is not None:
        for name in ("energy", "free_energy"):
            atoms.calc.results.pop(name, None)
        atoms.info[VASP_ENERGY] = 1
    if form == "espresso-out" and "smearing contrib." in text and atoms.calc is not None:
        # With smearing, what is printed as the total energy counts the entropy of the electrons.
        atoms.calc.results.pop("energy", None)
    if form == "xsf":
        if atoms.calc is not None:
            atoms.calc = None
            atoms.info[XSF_FORCES] = 1
        if re.search(r"(?mi)^#.*energy\s*=", text):
            atoms.info[XSF_ENERGY] = 1
    if form in ("espresso-in", "espresso-out"):
        _set_masses(text, atoms)


def missing_end(form: str, text: str) -> str | None:
    """Say what is missing at the end of an output that broke off after its last whole frame, or None."""
    if (end := ENDS.get(form)) and end not in text[-8192:]:
        return f"it does not end as such files do ({end}); is the file complete?"
    return None


def _set_masses(text: str, atoms: Atoms) -> None:
    """Take an isotope from ATOMIC_SPECIES, where all species have one mass; ASE does not."""
    section = re.search(r"(?mi)^\s*ATOMIC_SPECIES[^\n]*\n((?:[ \t]*\w+[ \t]+[\d.]+[^\n]*\n)+)", text)
    if section is None:
        return
    names = {isotope_by_mass(float(line.split()[1])) for line in section[1].splitlines() if line.strip()}
    if len(names) == 1 and (name := names.pop()):
        set_isotopes(atoms, [name] * len(atoms))
