import dataclasses
import json

import jax
import numpy as np
import pytest

from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_eval.energies import energy as module
from fnqs_eval.energies.energy import EvaluationSettings, evaluate_records
from fnqs_eval.energies.slots import MEASUREMENTS
from fnqs_eval.energies.table import write_json

SETTINGS = EvaluationSettings(walkers=64, equilibration_sweeps=50, target_error=1e-6, max_measurements=2 * MEASUREMENTS)


@pytest.fixture(scope="module")
def wavefunction(small_model):
    return WaveFunction(small_model)


@pytest.fixture(scope="module")
def records(make_bcc):
    return [make_bcc(0), make_bcc(1, energy=-1.3), make_bcc(2)]


@pytest.fixture(scope="module")
def params(wavefunction, records):
    system = make_system(records[0].configuration, wavefunction.config)
    return jax.jit(wavefunction.init)(jax.random.key(0), system)


@pytest.fixture
def spoil(monkeypatch):
    """A function that lets another one change every measured set of energies (MEASUREMENTS, K, n)."""
    calls = []

    def install(change=lambda energies: None):
        original = module.make_measure

        def make(*settings):
            measure = original(*settings)

            def measured(*arguments):
                walkers, energies, *others = measure(*arguments)
                energies = np.array(energies)
                change(energies)
                calls.append(len(energies))
                return walkers, energies, *others

            return measured

        monkeypatch.setattr(module, "make_measure", make)
        return calls

    return install


def test_error_bars_are_honest(wavefunction, params, records):
    seeds = 8
    runs = [
        evaluate_records(wavefunction, params, records[:2], dataclasses.replace(SETTINGS, seed=seed))
        for seed in range(seeds)
    ]
    for k in range(2):
        energies = np.array([run[k].energy_per_atom for run in runs])
        errors = np.array([run[k].error_per_atom for run in runs])
        # Chi squared with 7 degrees of freedom over 7: outside these limits once in 2000.
        chi = np.sum((energies - energies.mean()) ** 2 / errors**2) / (seeds - 1)
        assert 0.1 < chi < 3.7
    first, second = runs[0]
    assert (first.identifier, second.identifier) == ("bcc-0", "bcc-1")
    assert second.label_energy_per_atom == -0.65
    assert first.label_energy_per_atom is None
    assert first.number == 2
    assert 0.2 < first.acceptance < 0.97  # so small a cell has a nearly flat psi^2: moves of any width pass
    # The variance of single energies over the samples is the least the squared error can be, on average; with 128
    # chains as blocks the squared error is itself known to 12 %, and 0.7 is two and a half of these below.
    assert first.error_per_atom**2 >= 0.7 * first.variance_per_atom / 2 / (64 * 2 * MEASUREMENTS)
    assert first.v_score == pytest.approx(first.variance_per_atom / first.energy_per_atom**2)  # N^2/N^2


def test_sampling_stops_at_the_requested_error(wavefunction, params, records, spoil):
    calls = spoil()
    eager = dataclasses.replace(SETTINGS, target_error=0.1, max_measurements=64 * MEASUREMENTS)
    results = evaluate_records(wavefunction, params, records[:2], eager)
    assert len(calls) <= 4  # long before 64
    assert all(result.error_per_atom <= 0.1 for result in results)
    assert not any("stopped before" in flag for result in results for flag in result.flags)
    calls.clear()
    results = evaluate_records(wavefunction, params, records[:2], SETTINGS)
    assert len(calls) == 2
    assert all("stopped before the error bar" in " ".join(result.flags) for result in results)


def test_a_limit_of_equilibration_ends_it_with_a_flag(wavefunction, params, records):
    limited = dataclasses.replace(SETTINGS, equilibration_limit=1)
    result, _ = evaluate_records(wavefunction, params, records[:2], limited)
    free, _ = evaluate_records(wavefunction, params, records[:2], SETTINGS)
    assert result.equilibration_sweeps < free.equilibration_sweeps
    assert any(flag.startswith("not equilibrated after") for flag in result.flags)
    assert not any(flag.startswith("not equilibrated after") for flag in free.flags)


def test_non_finite_energies_are_left_out_and_flagged(wavefunction, params, records, spoil):
    (clean, other) = evaluate_records(wavefunction, params, records[:2], SETTINGS)

    def change(energies):
        energies[3, 0, 5] = np.nan
        energies[7, 0, 11] = np.inf

    spoil(change)
    result, untouched = evaluate_records(wavefunction, params, records[:2], SETTINGS)
    # Two of the 16 local energies of every part of the two: the walkers keep the rest of their histories.
    [flag] = [flag for flag in result.flags if "not finite" in flag]
    assert flag.startswith("4 of 2048 local energies were not finite and were left out: at most ")
    assert untouched == other
    assert result.energy_per_atom != clean.energy_per_atom
    assert abs(result.energy_per_atom - clean.energy_per_atom) < 3 * clean.error_per_atom


def test_a_lost_configuration_does_not_take_the_others_with_it(wavefunction, params, records, spoil, tmp_path):
    expected = evaluate_records(wavefunction, params, records[:2], SETTINGS)[0]

    def change(energies):
        energies[:9, 1, :] = np.nan

    spoil(change)
    kept, lost = evaluate_records(wavefunction, params, records[:2], SETTINGS)
    assert kept == expected
    assert np.isnan(lost.energy_per_atom)
    assert any(flag.startswith("64 of 64 walkers") for flag in lost.flags)
    write_json(tmp_path / "energies.json", [kept, lost])
    written = json.loads((tmp_path / "energies.json").read_text())["results"]
    assert written[0]["energy_per_atom"] == kept.energy_per_atom
    assert written[1]["energy_per_atom"] is None


def test_many_configurations_go_in_turns_and_come_back_in_order(wavefunction, params, records, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 2 * 64 * 2)
    lines = []
    results = evaluate_records(wavefunction, params, records, SETTINGS, steps=0, announce=lines.append)
    assert [result.identifier for result in results] == ["bcc-0", "bcc-1", "bcc-2"]
    assert [result.steps for result in results] == [0, 0, 0]
    assert lines[-1] == "3 of 3 configurations evaluated"
    assert results[:2] == [
        dataclasses.replace(result, steps=0) for result in evaluate_records(wavefunction, params, records[:2], SETTINGS)
    ]
    last = evaluate_records(wavefunction, params, [records[2]] * 2, SETTINGS, steps=0)[0]
    assert results[2] == last
