"""One item of a held-out protocol: zero-shot, fine-tuned, from scratch, and what fine-tuning forgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fnqs.errors import InputError
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.record import Record
from fnqs_data.store.store import open_dataset
from fnqs_data.store.write import write_dataset
from fnqs_eval.energies.energy import EvaluationSettings
from fnqs_eval.energies.evaluate import evaluate_with_journal
from fnqs_eval.energies.journal import Journal, fingerprint
from fnqs_eval.energies.table import EnergyResult
from fnqs_eval.transfer.item_result import Forgetting, ItemResult
from fnqs_eval.transfer.learning_curve import Curve, Point, evaluated_steps, mean_point
from fnqs_eval.transfer.protocol import Item, Protocol
from fnqs_train.checkpointing.steps import CheckpointPath
from fnqs_train.config import RunConfig
from fnqs_train.finetune import finetune_config
from fnqs_train.loop import train
from fnqs_train.monitoring.metrics import read_metrics
from fnqs_train.monitoring.metrics_row import column
from fnqs_train.run_folder import steps_done

SAVED = 100
"""Steps between two checkpoints of a training: what a kill can cost at most."""


@dataclass(frozen=True)
class Foundation:
    """The pretrained run whose transfer is measured.

    Attributes:
        checkpoint: the step that is used.
        config: settings of the run.
        params: parameters of the checkpoint.
        remembered: configurations of its training set on which forgetting is measured.
        folder: of the protocol's results.
    """

    checkpoint: CheckpointPath
    config: RunConfig
    params: dict
    remembered: list[Record]
    folder: Path

    @property
    def name(self) -> str:
        """Run and step, as recorded in checkpoints that come from it."""
        return f"{self.checkpoint.run_folder.name} step {self.checkpoint.step}"


@dataclass(frozen=True)
class _Identity:
    """What identifies the energies of an item in its journals, besides checkpoint and configurations.

    The lengths of the trainings are zero in it, so that a protocol can be extended later.
    """

    item: Item
    settings: EvaluationSettings


def run_item(
    foundation: Foundation, protocol: Protocol, item: Item, records: Sequence[Record], announce: Callable[[str], None]
) -> ItemResult:
    """Evaluate and train for one item; results of an earlier, perhaps killed, call are reused.

    Args:
        foundation: the run.
        protocol: settings of all items.
        item: this one.
        records: its configurations.
        announce: called with lines of progress.

    Raises:
        InputError: the folder holds the item with other settings, or numbers stay non-finite.
        Stopped: after a signal, with everything saved.
    """
    folder = foundation.folder / item.name
    same = dataclasses.replace(item, finetune_steps=0, scratch_steps=0)
    rough, exact = protocol.error or protocol.within / 3, protocol.error or protocol.within / 5
    ends_only = protocol.evaluate == "ends"

    def energies(name: str, params: Callable[[], dict], step: int, error: float) -> list[EnergyResult]:
        settings = _settings(protocol, error)
        key = fingerprint(foundation.checkpoint, _Identity(same, settings), records)
        return _evaluated(folder / f"{name}.jsonl", key, foundation, params, records, settings, step, announce)

    def curve(training: _Training, name: str, steps: int) -> tuple[Point, ...]:
        points = []
        for step in [steps] if ends_only else evaluated_steps(steps):
            announce(f"{item.name}, {name}: step {step} of {steps}")
            points.append(_mean(energies(f"{name}-{step}", partial(training.params_at, step), step, rough)))
        return tuple(points)

    def foundation_params() -> dict:
        # Called only after the journal has been checked to be of the same protocol.
        announce(f"{item.name}: {len(records)} configurations zero-shot")
        return foundation.params

    single = energies("zero-shot", foundation_params, 0, exact)
    zero_shot = _mean(single)
    tuned, scratch = (_Training(foundation, item, records, name) for name in ("fine-tuned", "from-scratch"))
    tuned_points = (zero_shot, *curve(tuned, "fine-tuned", item.finetune_steps))
    end = partial(tuned.params_at, item.finetune_steps)
    limit = tuned_points[-1]
    if not ends_only:
        limit = _mean(energies(f"limit-{item.finetune_steps}", end, item.finetune_steps, exact))
    forgetting = _forgetting(foundation, protocol, folder, end, same, item.finetune_steps, announce)
    scratch_points = curve(scratch, "from-scratch", item.scratch_steps)
    return ItemResult(
        name=item.name,
        configurations=tuple(record.identifier for record in records),
        numbers=tuple(sorted({record.n_atoms for record in records})),
        densities=tuple(round(record.wigner_seitz_radius, 6) for record in records),
        phases=tuple(sorted({record.phase for record in records})),
        train=item.train,
        walkers=item.walkers,
        within=protocol.within,
        zero_shot=zero_shot,
        single=tuple(single),
        limit=limit,
        fine_tuned=Curve(tuned_points, tuned.seconds_per_step()),
        from_scratch=Curve(scratch_points, scratch.seconds_per_step()),
        forgetting=forgetting,
    )


class _Training:
    """A training that runs only as far as the latest step whose parameters were asked for, and goes on from there."""

    def __init__(self, foundation: Foundation, item: Item, records: Sequence[Record], name: str):
        self._folder = foundation.folder / item.name / name
        self._records = records
        self._parent = foundation.name if name == "fine-tuned" else ""
        self._start = self._params = foundation.params if name == "fine-tuned" else None
        self._step = 0
        config = finetune_config(
            foundation.config,
            name=name,
            recipe=str((self._folder / "dataset").resolve()),
            steps=0,
            walkers=item.walkers,
            together=min(item.together, len(records)),
            part=item.train if name == "fine-tuned" else "all",
            rank=item.rank,
        )
        self._config = dataclasses.replace(
            config,
            checkpoint=dataclasses.replace(config.checkpoint, every_steps=SAVED),
            log=dataclasses.replace(config.log, wandb="disabled"),
        )

    def params_at(self, step: int) -> dict:
        """Train on to a step, from the latest checkpoint; steps must be asked for in ascending order."""
        if self._params is not None and step == self._step > 0:
            return self._params
        done = steps_done(self._folder) or 0
        if done > step:
            raise InputError(
                f"{self._folder}: the training is at step {done} already, and step {step} was not evaluated on the "
                f"way; ask for more steps, or start anew with --restart"
            )
        place = self._folder / "dataset"
        dataset = open_dataset(place) if place.exists() else write_dataset(place, self._records)
        # Later pieces take their parameters from the checkpoint; `params` is then only the reference of E - E₀.
        self._params = train(
            dataclasses.replace(self._config, steps=step),
            self._folder,
            dataset,
            resume=True,
            params=self._start,
            parent=self._parent,
        )
        self._step = step
        return self._params

    def seconds_per_step(self) -> float:
        """Median over the steps of the record but the first, which compiles."""
        times = column(read_metrics(self._folder), "seconds_per_step")
        return float(np.nanmedian(times[1:] if len(times) > 1 else times))


def _forgetting(
    foundation: Foundation,
    protocol: Protocol,
    folder: Path,
    params: Callable[[], dict],
    item: Item,
    step: int,
    announce: Callable[[str], None],
) -> Forgetting | None:
    """Evaluate parent and fine-tuned parameters, with equal seeds, on configurations of the parent's training set."""
    records = foundation.remembered
    if not records:
        return None
    settings = _settings(protocol, protocol.forgetting_error)
    both = []
    for path, start, identity in (
        (foundation.folder / "remembered.jsonl", lambda: foundation.params, settings),
        (folder / f"remembered-{step}.jsonl", params, _Identity(item, settings)),
    ):
        key = fingerprint(foundation.checkpoint, identity, records)
        both.append(_evaluated(path, key, foundation, start, records, settings, step, announce))
    changes = [after.energy_per_atom - before.energy_per_atom for before, after in zip(*both, strict=True)]
    errors = [row.error_per_atom for rows in both for row in rows]
    return Forgetting(float(np.mean(changes)), float(np.linalg.norm(errors)) / len(records), len(records))


def _evaluated(
    path: Path,
    key: str,
    foundation: Foundation,
    params: Callable[[], dict],
    records: Sequence[Record],
    settings: EvaluationSettings,
    step: int,
    announce: Callable[[str], None],
) -> list[EnergyResult]:
    """Energies from a journal that is kept; `params` is called only if some of them are missing."""
    with Journal(path, key) as journal:
        if len(journal.results) < len(records):
            wavefunction = WaveFunction(foundation.config.model)
            evaluate_with_journal(wavefunction, params(), records, settings, journal, announce)
        return [dataclasses.replace(journal.results[place], steps=step) for place in range(len(records))]


def _settings(protocol: Protocol, error: float) -> EvaluationSettings:
    return EvaluationSettings(
        walkers=protocol.walkers,
        equilibration_sweeps=protocol.equilibration_sweeps,
        target_error=error,
        max_measurements=protocol.measurements,
        seed=protocol.seed,
    )


def _mean(rows: Sequence[EnergyResult]) -> Point:
    return mean_point(rows[0].steps or 0, [row.energy_per_atom for row in rows], [row.error_per_atom for row in rows])
