"""Models that come with the package, found by name where there is no folder of that name."""

from __future__ import annotations

from pathlib import Path

MODELS = Path(__file__).parent
"""Run folders, one a model, without walkers, optimiser and anything else that an evaluation does without."""


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(folder.name for folder in MODELS.iterdir() if (folder / "config.toml").is_file())


def find_shipped(path: Path) -> Path | None:
    """Return the run folder of the shipped model that a path names: its name alone, or a step in it; else None."""
    if path.is_absolute() or not path.parts or path.parts[0] not in shipped_models():
        return None
    return MODELS / path


def is_shipped(run_folder: Path) -> bool:
    """Whether a run folder is inside the installed package, where nothing may be written."""
    return run_folder.resolve().is_relative_to(MODELS.resolve())


def results_folder(run_folder: Path) -> Path:
    """Return where results about a run are written: its own folder, or runs/<name> of a shipped model."""
    return Path("runs") / run_folder.name if is_shipped(run_folder) else run_folder
