"""ASE .traj files, checked against their own length before ASE reads them.

A .traj file is JSON and raw numbers, nothing pickled; but ASE believes the counts, offsets and shapes that it
finds there. Each frame is reached by its own offset, so a bad one stands alone.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.trajectory import TrajectoryReader

from fnqs.errors import InputError
from fnqs_data.readers.formats.text import reason_of

ULM_MAGIC = (b"- of Ulm", b"AFFormat")
HEADER = struct.Struct("<8s16sqqq")


def iterate_trajectory(path: Path, wanted: slice) -> Iterator[tuple[int, Atoms | InputError]]:
    """Yield (frame number, frame) or (frame number, what is wrong with it), without the file's name.

    Args:
        path: an uncompressed .traj file.
        wanted: frames, counted from the start; no negative numbers.

    Raises:
        InputError: if the file as a whole is no valid trajectory, naming it.
    """
    try:
        offsets = _frame_offsets(path)
        if not offsets:
            raise InputError("it holds no frames")
        _check_frame(path, offsets[0])
        reader = TrajectoryReader(str(path))
    except InputError as error:
        raise InputError(f"{path}: {error}; is the file complete?") from error
    # ASE reads the header from the first frame, and fails in many ways.
    except Exception as error:
        raise InputError(
            f"{path}: frame 0: it cannot be read as traj ({reason_of(error)}); is the file damaged?"
        ) from error
    with reader:
        for frame in range(len(offsets))[wanted]:
            try:
                _check_frame(path, offsets[frame])
                atoms = Atoms(reader[frame])
            except InputError as error:
                yield frame, InputError(f"{error}; is the file damaged?")
            except Exception as error:
                yield frame, InputError(f"it cannot be read as traj ({reason_of(error)}); is the file damaged?")
            else:
                yield frame, atoms


def _frame_offsets(path: Path) -> list[int]:
    """Where each frame's description begins; raises InputError if they cannot be there."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER.size)
        if len(head) < HEADER.size or head[:8] not in ULM_MAGIC:
            raise InputError("it is no ASE trajectory or ends within its header")
        _, tag, _, frames, start = HEADER.unpack(head)
        if tag.rstrip() != b"ASE-Trajectory":
            raise InputError("it is no ASE trajectory")
        if frames < 0 or start < 0 or start + 8 * frames > size:
            raise InputError(f"it announces {frames} frames, which its {size} bytes cannot hold")
        file.seek(start)
        offsets = np.fromfile(file, "<i8", frames).tolist()
    if any(not HEADER.size <= offset <= size - 8 for offset in offsets):
        raise InputError("its frames lie outside the file")
    return offsets


def _check_frame(path: Path, offset: int) -> None:
    """Refuse a frame whose arrays do not fit into the file, or whose lists do not fill their shapes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(offset)
        (length,) = struct.unpack("<q", file.read(8))
        if not 0 <= length <= size - offset - 8:
            raise InputError("its description does not fit into the file")
        text = file.read(length)
    try:
        json.loads(text, object_pairs_hook=lambda pairs: _check_arrays(pairs, size))
    except InputError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"its description cannot be read ({reason_of(error)})") from error


def _check_arrays(pairs: list[tuple[str, object]], size: int) -> dict:
    """Check the two ways in which a description writes arrays: by offset into the file, or as a list."""
    description = dict(pairs)
    for key in ("ndarray", "__ndarray__"):
        if key not in description:
            continue
        shape, dtype, data = description[key]  # type: ignore[misc]
        if any(not isinstance(n, int) or n < 0 for n in shape):
            raise InputError(f"it holds an array of shape {shape}")
        kind = np.dtype(dtype)
        if kind.kind not in "biufcU":
            raise InputError(f"it holds an array of type {kind}")
        number = math.prod(shape)
        if key == "ndarray" and not 0 <= data <= size - number * kind.itemsize:
            raise InputError(f"an array of shape {shape} does not fit into the file")
        if key == "__ndarray__" and np.size(data) != number * (2 if kind.kind == "c" else 1):
            raise InputError(f"a list of {np.size(data)} numbers is given the shape {shape}")
    return description
