"""Transfer: zero-shot energies of what was held out, and fine-tuning against starting from scratch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fnqs.errors import InputError
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.record import Record
from fnqs_data.store.store import Dataset, write_dataset
from fnqs_eval.energies.energy import EvaluationSettings, evaluate_records
from fnqs_eval.energies.table import EnergyResult
from fnqs_train.commands import finetune_config
from fnqs_train.config import RunConfig
from fnqs_train.loop import train
from fnqs_train.monitoring.metrics import read_metrics

DENSITY_SPLIT, PHASE_SPLIT = "held-out-density", "held-out-phase"


@dataclass(frozen=True)
class Comparison:
    """One held-out configuration: zero-shot, fine-tuned and from scratch at equal settings and steps.

    Attributes:
        zero_shot, fine_tuned, from_scratch: evaluated energies.
        curves: (steps, E/N in Ha, error in Ha) of both trainings, by name.
    """

    zero_shot: EnergyResult
    fine_tuned: EnergyResult
    from_scratch: EnergyResult
    curves: dict[str, tuple[list[float], list[float], list[float]]]

    @property
    def zero_shot_excess(self) -> tuple[float, float]:
        """Zero-shot minus fine-tuned E/N with its error, Ha."""
        return _difference(self.zero_shot, self.fine_tuned)

    @property
    def from_scratch_excess(self) -> tuple[float, float]:
        """From-scratch minus fine-tuned E/N with its error, Ha."""
        return _difference(self.from_scratch, self.fine_tuned)


def held_out_records(dataset: Dataset, split: str, number: int, count: int) -> list[Record]:
    """Choose records of a split with N protons (its largest N if there are none), spread over densities.

    Raises:
        InputError: the data set holds nothing out under this name.
    """
    chosen = dataset.where(split=split)
    if not len(chosen):
        raise InputError(
            f"{dataset.folder}: nothing is held out as {split!r}; name densities and phases under [held_out] "
            f"in the recipe and train again"
        )
    numbers = dataset.numbers[chosen]
    wanted = number if np.any(numbers == number) else int(numbers.max())
    chosen = chosen[numbers == wanted]
    ordered = chosen[np.argsort(dataset.density_parameters[chosen], kind="stable")]
    places = np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int))
    return [dataset[int(i)] for i in ordered[places]]


def compare(
    config: RunConfig,
    params: dict,
    record: Record,
    zero_shot: EnergyResult,
    settings: EvaluationSettings,
    folder: Path,
    announce: Callable[[str], None],
) -> Comparison:
    """Fine-tune on one configuration and train from scratch on it, with the same steps and walkers.

    Args:
        config: of the foundation run.
        params: its parameters.
        record: the configuration.
        zero_shot: its energy before any step.
        settings: of the evaluations.
        folder: where both runs are written; must be empty or missing.
        announce: called with lines of progress.
    """
    evaluated, curves = {}, {}
    for name, start in (("fine-tuned", params), ("from scratch", None)):
        run_folder = folder / name.replace(" ", "-")
        dataset = write_dataset(run_folder / "dataset", [replace(record, split="train")])
        short = finetune_config(
            config,
            name=run_folder.name,
            recipe=str((run_folder / "dataset").resolve()),
            steps=config.transfer.finetune_steps,
            walkers=config.transfer.walkers,
            together=1,
        )
        short = replace(short, log=replace(short.log, wandb="disabled"))
        announce(f"{name}: {short.steps} steps on {record.identifier}")
        trained = train(short, run_folder, dataset, params=start, parent="" if start is None else config.name)
        (evaluated[name],) = evaluate_records(
            WaveFunction(config.model), trained, [record], settings, steps=short.steps
        )
        curves[name] = _curve(run_folder, config.transfer.walkers, record.number)
    return Comparison(zero_shot, evaluated["fine-tuned"], evaluated["from scratch"], curves)


def summary(comparison: Comparison) -> str:
    """Two sentences: the excess of zero-shot and of from-scratch over fine-tuned, in mHa per atom."""
    zero, zero_error = (1e3 * x for x in comparison.zero_shot_excess)
    scratch, scratch_error = (1e3 * x for x in comparison.from_scratch_excess)
    verdict = "less" if zero < scratch else "not less"
    return (
        f"Above the fine-tuned energy, per atom: zero-shot {zero:.2f} ± {zero_error:.2f} mHa, from scratch "
        f"after {comparison.from_scratch.steps} steps {scratch:.2f} ± {scratch_error:.2f} mHa. "
        f"Without a single step the foundation model is {verdict} far off than those steps from scratch."
    )


def _difference(first: EnergyResult, second: EnergyResult) -> tuple[float, float]:
    error = float(np.hypot(first.error_per_atom, second.error_per_atom))
    return first.energy_per_atom - second.energy_per_atom, error


def _curve(run_folder: Path, walkers: int, number: int) -> tuple[list[float], list[float], list[float]]:
    """Training curve from the record; the error is that of one step's walkers."""
    rows: Sequence[dict] = [row for row in read_metrics(run_folder) if row["energy_per_atom"] is not None]
    steps = [float(row["step"]) for row in rows]
    energies = [float(row["energy_per_atom"]) for row in rows]
    errors = [float(np.sqrt(row["variance_per_atom"] / (number * walkers))) for row in rows]
    return steps, energies, errors
