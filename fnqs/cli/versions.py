"""What a report of a fault needs to know of an installation, without importing any of it."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "fnqs",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "array_record",
    "numpy",
    "scipy",
    "ase",
    "spglib",
    "h5py",
    "msgspec",
    "rich",
    "matplotlib",
    "wandb",
)
"""Distributions whose versions matter, by the names that pip knows them by."""

ACCELERATORS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin", "libtpu")
"""What JAX needs for devices other than processors; named where it is installed."""


def versions() -> str:
    """Write one line each for every package, Python, the system and what chooses the devices.

    Devices are not asked for: that would start JAX, which takes seconds and can hang where a driver is broken.
    """
    found = {name: _version(name) or "not installed" for name in PACKAGES}
    found |= {name: number for name in ACCELERATORS if (number := _version(name)) is not None}
    found["python"] = f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    found["platform"] = f"{platform.platform()}, {os.cpu_count()} cores"
    found["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS") or "not set"
    width = max(map(len, found))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in found.items())


def add_version_option(parser: argparse.ArgumentParser) -> None:
    """Give a command the option --version, which prints `versions()` and ends with code 0."""
    parser.add_argument("--version", action=_ShowVersions, nargs=0, help="print the versions that a bug report needs")


class _ShowVersions(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        print(versions(), flush=True)
        parser.exit(0)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
