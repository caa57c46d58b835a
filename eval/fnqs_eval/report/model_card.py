"""The model card of a run: what it was trained on, what it costs, how good it is where, and what it is not for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fnqs_eval.energies.table import EnergyResult
from fnqs_eval.report.report_data import RunReport
from fnqs_eval.transfer.conclusion import conclusions
from fnqs_eval.transfer.item_result import HEADINGS

CARD_NAME = "model-card.md"

DENSITY_EDGES = (0.0, 1.2, 1.5, 1.8, 2.2, math.inf)
"""Limits of r_s (bohr) between which accuracies are put together."""


def model_card(report: RunReport) -> str:
    """Write the card as Markdown; every number is one of the run folder."""
    config, meta = report.config, report.meta
    lines = [f"# {report.folder.name}: a foundation neural quantum state for dense hydrogen", ""]
    lines += ["A variational wave function of electrons in static, periodic hydrogen (fnqs). Hartree atomic units.", ""]
    lines += ["## Model and data", ""]
    recipe = config.data.recipe.replace("\\", "/").rpartition("/")[2]
    lines.append(f"- Data: `{recipe}`, split `{config.data.split}`.")
    if "configurations" in meta:
        lines.append(f"- Configurations: {meta['configurations']:,}, of which {meta['visited']:,} were visited.")
    numbers = sorted({number for row in report.metrics if (number := row.get("number"))})
    if numbers:
        lines.append(f"- Sizes recorded in training: N = {', '.join(map(str, numbers))}.")
    lines.append(f"- Starting point: {meta.get('parent') or 'random parameters'}; seed {config.seed}.")
    model = config.model
    lines.append(
        f"- Network: {model.features} features, {model.vectors} vectors, {model.amplitudes} amplitudes, "
        f"{model.message_rounds} message rounds, {model.determinants} determinants."
    )
    lines += ["", "## Cost", ""]
    sampling = config.sampling
    steps = "no checkpoint" if report.step is None else f"{report.step} steps"
    momentum = config.optimizer.momentum
    method = f"SPRING, momentum {momentum:g}" if momentum else "minSR"
    lines.append(
        f"- {steps} of {sampling.configurations_per_step} configurations with "
        f"{sampling.walkers_per_configuration} walkers each ({method})."
    )
    if report.seconds is not None:
        lines.append(f"- {report.seconds:,.0f} s for the last stretch of the training, compilation included.")
    lines += ["", "## Accuracy by phase and density", "", "Medians of what was evaluated, zero-shot.", ""]
    rows = [row for _, row in report.all_energies() if math.isfinite(row.energy_per_atom)]
    lines += _accuracy(rows) if rows else ["No energies were evaluated yet: `fnqs-evaluate energies`."]
    for name, items in report.protocols.items():
        lines += ["", f"Held out ({name}; ratios in brackets are lower bounds):", ""]
        lines += [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
        lines += [f"| {' | '.join(item.row())} |" for item in items]
        lines += ["", *[f"- {sentence}" for sentence in conclusions(items)]]
    lines += ["", "## Known limits", ""]
    lines += [
        "- Static protons, unpolarised electrons, no finite-size correction; one twist unless a set was asked for.",
        "- Energies are variational: too high by an amount that grows with the variance; the variance says where.",
        "- Symmetric under rotations of the electrons and protons only together with the cell.",
    ]
    if numbers:
        lines.append(f"- Beyond N = {max(numbers)} nothing was trained.")
    lines += [f"- {text}" for text in report.failures]
    lines += ["", "## How to cite", ""]
    lines += [
        "Cite the fnqs repository with its version, the name of this run and its step "
        f"({report.folder.name}, step {report.step}), and the method: Rende et al., arXiv:2502.09488; Goldshlager, "
        "Abrahamsen and Lin, J. Comput. Phys. 516, 113351 (2024).",
    ]
    lines += ["", "## Sources", ""]
    lines += [f"- `{source.name}` blake2b {source.digest}" for source in report.sources]
    return "\n".join(lines) + "\n"


def _accuracy(rows: Sequence[EnergyResult]) -> list[str]:
    lines = ["| phase | r_s (bohr) | energies | error bar (mHa/atom) | variance/N (Ha²) | minus label (mHa/atom) |"]
    lines.append("|---|---|---|---|---|---|")
    for phase in sorted({row.phase for row in rows}):
        for low, high in pairwise(DENSITY_EDGES):
            members = [row for row in rows if row.phase == phase and low <= row.density_parameter < high]
            if not members:
                continue
            span = f"{min(r.density_parameter for r in members):.2f} to {max(r.density_parameter for r in members):.2f}"
            errors = 1e3 * float(np.median([row.error_per_atom for row in members]))
            variance = float(np.median([row.variance_per_atom for row in members]))
            excess = [
                1e3 * (row.energy_per_atom - row.label_energy_per_atom)
                for row in members
                if row.label_energy_per_atom is not None
            ]
            label = f"{np.mean(excess):+.1f}" if excess else "no labels"
            lines.append(f"| {phase} | {span} | {len(members)} | {errors:.2g} | {variance:.3f} | {label} |")
    return lines
