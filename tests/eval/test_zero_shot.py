import csv
import dataclasses
import math

import ase.io
import jax
import numpy as np
import pytest

from fnqs.configuration import make_configuration
from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_data.readers import read_records
from fnqs_data.store.write import write_dataset
from fnqs_eval.energies import energy as module
from fnqs_eval.energies.energy import EvaluationSettings, evaluate_in_turns, evaluate_records
from fnqs_eval.energies.evaluate import (
    at_twists,
    averages,
    evaluate_with_journal,
    finish,
    label_convention,
    settings_at_twists,
    with_averages,
)
from fnqs_eval.energies.journal import Journal
from fnqs_eval.energies.outputs import write_csv, write_extxyz
from fnqs_eval.energies.reliability import descriptor, judge, rank_correlations, training_distribution
from fnqs_eval.energies.slots import MEASUREMENTS
from fnqs_eval.energies.table import EnergyResult
from fnqs_eval.energies.twists import parse_twists

SETTINGS = EvaluationSettings(walkers=64, equilibration_sweeps=50, target_error=1e-6, max_measurements=2 * MEASUREMENTS)


@pytest.fixture(scope="module")
def wavefunction(small_model):
    return WaveFunction(small_model)


@pytest.fixture(scope="module")
def params(wavefunction, make_bcc):
    system = make_system(make_bcc(0).configuration, wavefunction.config)
    return jax.jit(wavefunction.init)(jax.random.key(0), system)


def test_cut_off_and_resumed_gives_the_numbers_of_one_run(wavefunction, params, make_bcc, tmp_path):
    records = [make_bcc(i) for i in range(4)]
    whole = evaluate_records(wavefunction, params, records, SETTINGS, steps=0)
    lines = []
    with Journal(tmp_path / "j", "x") as journal:
        for batch in evaluate_in_turns(wavefunction, params, {2: records[2], 0: records[0]}, SETTINGS, steps=0):
            journal.append(batch)
    before = (tmp_path / "j").read_bytes()
    with Journal(tmp_path / "j", "x") as journal:
        results = evaluate_with_journal(wavefunction, params, records, SETTINGS, journal, lines.append)
    assert [result.identifier for result in results] == [record.identifier for record in records]
    after = (tmp_path / "j").read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == 5  # the fingerprint and every configuration once
    assert "2 of 4 energies are in" in lines[0]
    assert "4 of 4" in lines[-1]
    for one, other in zip(whole, results, strict=True):
        # Equal random numbers in a batch of another shape: equal but for float32 rounding, unless that flips a move.
        assert abs(one.energy_per_atom - other.energy_per_atom) < 4 * np.hypot(one.error_per_atom, other.error_per_atom)


def test_done_early_makes_room_for_the_next(wavefunction, params, make_bcc, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 2 * 64 * 2)  # two slots
    busy = []
    original = module.Sampler.measure_part

    def part(self, state, active):
        busy.append([item.record.identifier for item in active])
        done = original(self, state, active)
        return [d or item.record.identifier in ("bcc-0", "bcc-2") for d, item in zip(done, active, strict=True)]

    monkeypatch.setattr(module.Sampler, "measure_part", part)
    long = dataclasses.replace(SETTINGS, max_measurements=4 * MEASUREMENTS)
    order = []
    for batch in evaluate_in_turns(wavefunction, params, {i: make_bcc(i) for i in range(4)}, long):
        order += batch
    assert busy[:3] == [["bcc-0", "bcc-1"], ["bcc-1", "bcc-2"], ["bcc-1", "bcc-3"]]
    assert order == [0, 2, 1, 3]
    assert sum(names.count("bcc-1") for names in busy) == 4
    assert sum(names.count("bcc-3") for names in busy) == 4


def test_twists_are_averaged_and_time_reversed_ones_agree(wavefunction, params, make_bcc):
    records = [make_bcc(0), make_bcc(1)]
    twists = parse_twists("0.25,0.1,0;-0.25,-0.1,0")
    sets = [twists] * 2
    tasks = at_twists(records, sets)
    assert [task.configuration.twist[0] for task in tasks] == [0.25, -0.25, 0.25, -0.25]
    each = settings_at_twists(SETTINGS, sets)
    assert each.target_error == pytest.approx(SETTINGS.target_error * math.sqrt(2))
    rows = with_averages(evaluate_records(wavefunction, params, tasks, each), sets)
    assert [row.twist for row in rows[:3]] == [(0.25, 0.1, 0.0), (-0.25, -0.1, 0.0), None]
    for plus, minus, mean in (rows[:3], rows[3:]):
        assert abs(plus.energy_per_atom - minus.energy_per_atom) < 4 * np.hypot(
            plus.error_per_atom, minus.error_per_atom
        )
        assert mean.energy_per_atom == pytest.approx((plus.energy_per_atom + minus.energy_per_atom) / 2)
        assert mean.error_per_atom == pytest.approx(np.hypot(plus.error_per_atom, minus.error_per_atom) / 2)
        assert any("the same twist for both spins" in flag for flag in mean.flags)
    finished = finish(rows, records, None, "lowest")
    totals = averages(finished)
    lowest = min(totals, key=lambda row: row.energy_per_atom)
    assert lowest.relative_energy == 0
    for row in totals:
        assert row.relative_energy == pytest.approx(row.energy_per_atom - lowest.energy_per_atom)
    assert all(row.relative_energy is None for row in finished if row.twist is not None)


def test_files_hold_the_numbers(tmp_path, make_bcc):
    records = [make_bcc(0, energy=-1.0), make_bcc(1)]
    results = [
        EnergyResult(
            identifier=record.identifier,
            number=2,
            density_parameter=record.wigner_seitz_radius,
            phase="bcc",
            twist=twist,
            energy_per_atom=-0.5,
            error_per_atom=0.001,
            variance_per_atom=0.02,
            acceptance=0.5,
            v_score=0.1,
            label_energy_per_atom=record.energy_per_atom,
            flags=["a, b"],
        )
        for record, twist in zip(records, [(0.0, 0.0, 0.0), None], strict=True)
    ]
    write_csv(tmp_path / "e.csv", results)
    rows = list(csv.DictReader((tmp_path / "e.csv").open()))
    assert [row["configuration"] for row in rows] == ["bcc-0", "bcc-1"]
    assert float(rows[0]["energy_per_atom_Ha"]) == -0.5
    assert rows[1]["twist_1"] == "average"
    assert rows[1]["label_energy_per_atom_Ha"] == ""
    assert rows[0]["flags"] == "a, b"
    write_extxyz(tmp_path / "e.extxyz", records, results)
    back = read_records(tmp_path / "e.extxyz")
    assert back[0].energy == pytest.approx(-1.0)
    assert back[0].energy_error == pytest.approx(0.002)
    np.testing.assert_allclose(back[0].configuration.protons, records[0].configuration.protons, atol=1e-6)
    _, averaged = ase.io.iread(tmp_path / "e.extxyz", index=":")
    assert averaged.info["twist_averaged"]
    assert label_convention(records[1]) == ""
    assert "not stated" in label_convention(records[0])
    assert "included" in label_convention(dataclasses.replace(records[0], corrected=True))


def test_descriptors_do_not_depend_on_how_the_crystal_is_written(make_bcc):
    record = make_bcc(3)
    cell, protons = record.configuration.cell, record.configuration.protons
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    sheared = np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]]) @ cell
    moved = make_configuration(sheared @ turn, (protons[::-1] + np.array([0.3, 9.0, -4.0])) @ turn)
    double = np.diag([2.0, 1.0, 1.0]) @ cell
    supercell = make_configuration(double, np.concatenate([protons, protons + cell[0]]))
    for same in (moved, supercell):
        other = dataclasses.replace(record, configuration=same)
        np.testing.assert_allclose(descriptor(other), descriptor(record), atol=1e-9)  # rounding of float64


def test_the_distance_grows_away_from_the_training_set(make_bcc, tmp_path):
    dataset = write_dataset(tmp_path / "set", [make_bcc(i) for i in range(12)])
    distribution = training_distribution(dataset, "train")
    assert distribution is not None
    assert distribution.largest == 2
    assert distribution.distance(make_bcc(3)) == pytest.approx(0, abs=1e-9)
    near = distribution.distance(make_bcc(5, split="train"))
    molecule = make_configuration(8 * np.eye(3), [[0, 0, 0], [1.4, 0, 0]])
    assert distribution.distance(dataclasses.replace(make_bcc(0), configuration=molecule)) > 5 + near
    assert training_distribution(write_dataset(tmp_path / "two", [make_bcc(0), make_bcc(1)]), "train") is None


def test_judgement_and_ranking(make_bcc):
    base = EnergyResult(
        identifier="c",
        number=2,
        density_parameter=1.3,
        phase="bcc",
        twist=(0.0, 0.0, 0.0),
        energy_per_atom=-0.5,
        error_per_atom=0.001,
        variance_per_atom=0.01,
        acceptance=0.5,
        v_score=0.1,
        effective_samples=1000.0,
        distance=1.0,
    )
    assert judge(base) == "good"
    assert judge(dataclasses.replace(base, variance_per_atom=0.05)) == "fair"
    assert judge(dataclasses.replace(base, variance_per_atom=0.5)) == "poor"
    assert judge(dataclasses.replace(base, distance=4.0)) == "fair"
    assert judge(dataclasses.replace(base, distance=40.0)) == "poor"
    assert judge(dataclasses.replace(base, effective_samples=10.0)) == "fair"
    assert judge(dataclasses.replace(base, energy_per_atom=math.nan)) == "poor"
    results = [dataclasses.replace(base, variance_per_atom=0.01 * i, distance=None) for i in range(1, 9)]
    found = rank_correlations(results, [-(float(i) ** 2) for i in range(1, 9)])
    assert found["variance_per_atom"] == pytest.approx(1)
    assert math.isnan(found["distance"])
    assert math.isnan(found["effective_samples"])
