"""Data sets of an HDF5 file by name: of this file alone, and of a known size before they are read."""

from __future__ import annotations

import h5py

from fnqs.errors import InputError


def dataset_at(file: h5py.File, name: str) -> h5py.Dataset | None:
    """Return a data set, or None if there is none of that name.

    Args:
        file: open.
        name: path from the root, without a leading slash.

    Raises:
        InputError: if it is a group, or leads to another file: what was not given to us is not opened.
    """
    node: h5py.Group | h5py.Dataset | h5py.Datatype = file
    for part in name.split("/"):
        if not isinstance(node, h5py.Group):
            raise InputError(f"{name} is not where a QMC-HAMM file has it; is the file damaged?")
        link = node.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{name} is a link, which is not followed; copy the data into the file")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise InputError(f"{name} is a group, not data; is this a QMC-HAMM file?")
    if node.external or node.is_virtual:
        raise InputError(f"the data of {name} lie in another file, which is not opened; copy them into this file")
    return node
