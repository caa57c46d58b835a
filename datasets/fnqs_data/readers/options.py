"""What a caller may say about a file: its format, and the names under which its labels stand."""

from __future__ import annotations

import msgspec


class ReadOptions(msgspec.Struct, frozen=True):
    """How to read a file where its content leaves a choice; None leaves it to the reader.

    Attributes:
        format: name of a format, as `known_formats.READ` lists them; the content is not asked then.
        energy_key: name of the total energy, eV of the whole cell.
        forces_key: name of the column of forces, eV/Å.
        stress_key: name of the stress, eV/Å^3, positive under tension.
        virial_key: name of the virial, eV, minus volume times stress.
    """

    format: str | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
