"""One labelled proton configuration on the host, and its exact byte encoding."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import msgspec
import numpy as np

from fnqs.configuration import Configuration, wigner_seitz_radius
from fnqs.errors import InputError

SPLITS = ("train", "held-out-density", "held-out-phase", "held-out-temperature", "held-out-trajectory")
"""What a record may be used for: training, or one of the transfer tests."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A configuration with its name, its labels and where it came from.

    Attributes:
        configuration: cell (3, 3), protons (N, 3) in bohr and twist (3,), float64 numpy.
        identifier: short name, unique inside a data set.
        phase: "bcc", "pa3", "liquid-atomic", ...; "unknown" where a file does not say.
        split: one of `SPLITS`.
        temperature: K, or None.
        pressure: GPa, or None.
        energy: Ha, whole cell, as labelled, or None.
        energy_error: one standard error of the energy, Ha, whole cell, or None.
        forces: (N, 3) Ha/bohr, or None.
        method: how the labels were computed.
        corrected: whether the energy includes finite-size corrections; None where unknown.
        source: name of the file that the record was read from.
        frame: its frame in that file.
        digest: blake2b of that file, hexadecimal.
        trajectory: name of the simulation run that it is a frame of; empty where it stands alone.
        stress: (3, 3) symmetric, Ha/bohr^3, or None; the energy's derivative by strain over the volume, so
            positive under tension and -trace/3 is the pressure (ASE's sign).
        potential_correction: finite-size correction of the potential energy, Ha, whole cell, or None; it is
            part of `energy` where `corrected` is True and still to be added where it is False.
        kinetic_correction: the same of the kinetic energy.
        isotope: "" for protium; "D", "T" or such as "H4 D12" where the file says so. The electrons do not know.
    """

    configuration: Configuration
    identifier: str
    phase: str = "unknown"
    split: str = "train"
    temperature: float | None = None
    pressure: float | None = None
    energy: float | None = None
    energy_error: float | None = None
    forces: np.ndarray | None = None
    method: str = ""
    corrected: bool | None = None
    source: str = ""
    frame: int | None = None
    digest: str = ""
    trajectory: str = ""
    stress: np.ndarray | None = None
    potential_correction: float | None = None
    kinetic_correction: float | None = None
    isotope: str = ""

    @property
    def n_atoms(self) -> int:
        """Number of protons N."""
        return len(self.configuration.protons)

    @property
    def wigner_seitz_radius(self) -> float:
        """r_s in bohr."""
        return float(wigner_seitz_radius(self.configuration))

    @property
    def energy_per_atom(self) -> float | None:
        """Labelled energy in Ha per atom, or None."""
        return None if self.energy is None else self.energy / self.n_atoms


class _Encoded(msgspec.Struct, array_like=True, frozen=True):
    """A record as it is stored: arrays as little-endian float64 bytes, so nothing is rounded."""

    identifier: str
    phase: str
    split: str
    cell: bytes
    protons: bytes
    twist: bytes
    temperature: float | None
    pressure: float | None
    energy: float | None
    energy_error: float | None
    forces: bytes | None
    method: str
    corrected: bool | None
    source: str
    frame: int | None
    digest: str
    trajectory: str = ""
    stress: bytes | None = None
    potential_correction: float | None = None
    kinetic_correction: float | None = None


class _EncodedIsotope(_Encoded, array_like=True, frozen=True):
    """A record of another isotope; one more field only where it says something, so that old sets keep their bytes."""

    isotope: str = ""


class _EncodedConfiguration(msgspec.Struct, array_like=True, frozen=True):
    """The first fields of `_Encoded`; decoding stops where they end."""

    identifier: msgspec.Raw
    phase: msgspec.Raw
    split: msgspec.Raw
    cell: bytes
    protons: bytes
    twist: bytes


_decoder = msgspec.msgpack.Decoder(_EncodedIsotope)
_configuration_decoder = msgspec.msgpack.Decoder(_EncodedConfiguration)


def encode_record(record: Record) -> bytes:
    """Turn a record into bytes; `decode_record` gives back the same bits."""
    configuration = record.configuration
    kind = functools.partial(_EncodedIsotope, isotope=record.isotope) if record.isotope else _Encoded
    return msgspec.msgpack.encode(
        kind(
            identifier=record.identifier,
            phase=record.phase,
            split=record.split,
            cell=_to_bytes(configuration.cell),
            protons=_to_bytes(configuration.protons),
            twist=_to_bytes(configuration.twist),
            temperature=record.temperature,
            pressure=record.pressure,
            energy=record.energy,
            energy_error=record.energy_error,
            forces=None if record.forces is None else _to_bytes(record.forces),
            method=record.method,
            corrected=record.corrected,
            source=record.source,
            frame=record.frame,
            digest=record.digest,
            trajectory=record.trajectory,
            stress=None if record.stress is None else _to_bytes(record.stress),
            potential_correction=record.potential_correction,
            kinetic_correction=record.kinetic_correction,
        )
    )


def decode_record(data: bytes) -> Record:
    """Turn bytes of `encode_record` back into a record.

    Raises:
        InputError: if the bytes are not a record.
    """
    try:
        stored = _decoder.decode(data)
        configuration = Configuration(
            cell=_from_bytes(stored.cell).reshape(3, 3),
            protons=_from_bytes(stored.protons).reshape(-1, 3),
            twist=_from_bytes(stored.twist).reshape(3),
        )
        forces = None if stored.forces is None else _from_bytes(stored.forces).reshape(-1, 3)
        stress = None if stored.stress is None else _from_bytes(stored.stress).reshape(3, 3)
    except (msgspec.DecodeError, ValueError) as error:
        raise InputError(f"a stored record cannot be decoded ({error}); build the data set again") from error
    return Record(
        configuration=configuration,
        identifier=stored.identifier,
        phase=stored.phase,
        split=stored.split,
        temperature=stored.temperature,
        pressure=stored.pressure,
        energy=stored.energy,
        energy_error=stored.energy_error,
        forces=forces,
        method=stored.method,
        corrected=stored.corrected,
        source=stored.source,
        frame=stored.frame,
        digest=stored.digest,
        trajectory=stored.trajectory,
        stress=stress,
        potential_correction=stored.potential_correction,
        kinetic_correction=stored.kinetic_correction,
        isotope=stored.isotope,
    )


def decode_configurations(data: list[bytes]) -> Configuration:
    """Stack the configurations of encoded records of one N without decoding their labels.

    Returns:
        cell (K, 3, 3), protons (K, N, 3) in bohr and twist (K, 3), float64.

    Raises:
        InputError: if the bytes are not records, or not all of one N.
    """
    try:
        stored = [_configuration_decoder.decode(encoded) for encoded in data]
        return Configuration(
            cell=_from_bytes(b"".join([s.cell for s in stored])).reshape(len(stored), 3, 3),
            protons=_stack_protons([s.protons for s in stored]),
            twist=_from_bytes(b"".join([s.twist for s in stored])).reshape(len(stored), 3),
        )
    except (msgspec.DecodeError, ValueError) as error:
        raise InputError(
            f"stored configurations cannot be decoded together ({error}); choose those of one N, or build the "
            f"data set again"
        ) from error


def _stack_protons(stored: list[bytes]) -> np.ndarray:
    if len({len(protons) for protons in stored}) > 1:
        raise ValueError("their numbers of protons differ")
    size = len(stored[0]) if stored else 0
    return _from_bytes(b"".join(stored)).reshape(len(stored), size // 24, 3)


def _to_bytes(values) -> bytes:
    return np.ascontiguousarray(values, dtype="<f8").tobytes()


def _from_bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype="<f8").astype(np.float64)
