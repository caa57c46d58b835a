"""Energies of trained wave functions, and how well they transfer.

    from fnqs_eval import load_model

    model = load_model("foundation")
    [result] = model.energies("my.extxyz", error=1e-3)

`Model` says what else it does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fnqs_eval.model import Model, load_model

__all__ = ["Model", "load_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fnqs_eval' has no attribute {name!r}")
    return getattr(import_module("fnqs_eval.model"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
