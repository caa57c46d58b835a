import json

import numpy as np
import pytest

from fnqs_train.finetune import converged, convergence_sentence
from fnqs_train.monitoring.convergence import WINDOW, has_converged


def rows(energies):
    return [
        {"step": i + 1, "energy_per_atom": None if energy is None else float(energy)}
        for i, energy in enumerate(energies)
    ]


def test_a_flat_energy_has_converged_and_a_falling_one_has_not():
    noise = np.random.default_rng(0).normal(scale=1e-3, size=2 * WINDOW)
    assert has_converged(rows(noise), 2e-3)
    assert not has_converged(rows(noise - 3e-4 * np.arange(2 * WINDOW)), 2e-3)  # falls by 6 mHa from window to window
    assert has_converged(rows(noise + 3e-4 * np.arange(2 * WINDOW)), 2e-3)  # a rising one will not get better


def test_too_few_or_too_noisy_lines_say_nothing():
    assert not has_converged(rows(np.zeros(2 * WINDOW - 1)), 1e-3)
    assert not has_converged(rows([0.0] * (2 * WINDOW - 1) + [None]), 1e-3)
    noise = np.random.default_rng(1).normal(scale=0.1, size=2 * WINDOW)
    assert not has_converged(rows(noise), 1e-3)


@pytest.mark.parametrize("rate", [5, 30])
def test_an_exponential_stops_when_a_window_gains_less_than_the_tolerance(rate):
    energies = np.exp(-np.arange(400) / rate)
    stop = next(n for n in range(2 * WINDOW, 400) if has_converged(rows(energies[:n]), 1e-3))
    gain = energies[stop - 2 * WINDOW : stop - WINDOW].mean() - energies[stop - WINDOW : stop].mean()
    assert gain < 1e-3
    assert stop < 2 * WINDOW + rate * 8  # exp(-8) is a third of the tolerance


@pytest.mark.parametrize(("flat_from", "wanted"), [(0, 2 * WINDOW), (50, 5 * WINDOW), (10**6, None)])
def test_finetuning_looks_after_every_window(tmp_path, flat_from, wanted):
    """The record grows line by line; only after a whole window is it looked at."""
    enough, steps = converged(tmp_path, 1e-3), 7 * WINDOW + 3
    energies = [-0.01 * min(step, flat_from) for step in range(steps)]
    ends = []
    for done in range(1, steps + 1):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(energies[:done])))
        if enough(done):
            ends.append(done)
            break
    assert ends == ([] if wanted is None else [wanted])
    (tmp_path / "checkpoints" / str(done)).mkdir(parents=True)
    said = convergence_sentence(tmp_path, 1e-3)
    assert said.startswith(
        "not converged to 1 mHa per atom within 143 steps; go on with --resume and more --steps"
        if wanted is None
        else f"converged to 1 mHa per atom after {wanted} steps"
    )
