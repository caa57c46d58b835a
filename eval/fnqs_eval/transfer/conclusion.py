"""Conclusions from the results of a protocol: a difference counts only from three error bars on."""

from __future__ import annotations

from collections.abc import Sequence

from fnqs.cli.notation import with_error
from fnqs_eval.transfer.item_result import ItemResult
from fnqs_eval.transfer.learning_curve import difference

ERROR_BARS = 3.0
"""Smallest difference, in standard errors, from which something is concluded."""


def conclusions(items: Sequence[ItemResult]) -> list[str]:
    """Return two sentences per item: zero-shot against training from scratch, and what fine-tuning adds."""
    return [sentence for item in items for sentence in (_against_scratch(item), _against_tuned(item))]


def _against_scratch(item: ItemResult) -> str:
    scratch = item.from_scratch.points[-1]
    above, error = difference(scratch, item.zero_shot)
    told = f"{item.name}: without a step on {_these(item)}, the foundation model"
    against = f"{scratch.step} steps from scratch"
    if above >= ERROR_BARS * error:
        return f"{told} lies {_millihartree(above, error)} per atom below {against}{_bars(above, error)}."
    if -above >= ERROR_BARS * error:
        return f"{told} lies {_millihartree(-above, error)} per atom above {against}{_bars(above, error)}."
    return f"{told} against {against}: nothing can be concluded ({_millihartree(-above, error)} per atom)."


def _against_tuned(item: ItemResult) -> str:
    gain, error = item.zero_shot_excess
    told = f"{item.name}: {item.limit.step} steps of fine-tuning"
    if gain >= ERROR_BARS * error:
        return f"{told} lower its energy by {_millihartree(gain, error)} per atom{_bars(gain, error)}."
    if -gain >= ERROR_BARS * error:
        return f"{told} raise its energy by {_millihartree(-gain, error)} per atom{_bars(gain, error)}."
    return f"{told}: nothing can be concluded (they change its energy by {_millihartree(-gain, error)} per atom)."


def _these(item: ItemResult) -> str:
    count = len(item.configurations)
    return "this configuration" if count == 1 else f"these {count} configurations"


def _millihartree(value: float, error: float) -> str:
    return f"{with_error(1e3 * value, 1e3 * error)} mHa"


def _bars(value: float, error: float) -> str:
    return f", {abs(value) / error:.0f} error bars" if error > 0 else ""
