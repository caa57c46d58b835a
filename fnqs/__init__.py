"""The physics and the wave function: pure functions of (parameters, configuration, electrons).

    import fnqs

    fnqs.configure()                                        # float64 on, before anything is computed
    configuration = fnqs.make_configuration(cell, protons)  # bohr
    wavefunction = fnqs.WaveFunction(fnqs.ModelConfig())

Trained models are loaded by `fnqs_eval.load_model`. Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from fnqs.configuration import Configuration, make_configuration
    from fnqs.errors import InputError
    from fnqs.hamiltonian import local_energy
    from fnqs.model_config import ModelConfig
    from fnqs.precision import configure
    from fnqs.system import make_system
    from fnqs.wavefunction import WaveFunction

__all__ = [
    "Configuration",
    "InputError",
    "ModelConfig",
    "WaveFunction",
    "__version__",
    "configure",
    "local_energy",
    "make_configuration",
    "make_system",
]

_MODULES = {
    "Configuration": "configuration",
    "InputError": "errors",
    "ModelConfig": "model_config",
    "WaveFunction": "wavefunction",
    "configure": "precision",
    "local_energy": "hamiltonian",
    "make_configuration": "configuration",
    "make_system": "system",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        metadata = import_module("importlib.metadata")
        try:
            return metadata.version("fnqs")
        except metadata.PackageNotFoundError:
            return "unknown: run from a checkout that is not installed"
    if name not in _MODULES:
        raise AttributeError(f"module 'fnqs' has no attribute {name!r}")
    return getattr(import_module(f"fnqs.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
