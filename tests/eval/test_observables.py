"""Observables of a wave function: against differences of its energy, against each other, and the command."""

import dataclasses
import json
from typing import Any

import ase.io.cube
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import units

from fnqs.hamiltonian import local_energies
from fnqs.system import make_system, stack_systems
from fnqs.wavefunction import WaveFunction
from fnqs_data.store.record import Record
from fnqs_eval.commands import main
from fnqs_eval.energies.alone import equilibrate_alone
from fnqs_eval.energies.sampling_progress import SamplingProgress
from fnqs_eval.energies.twists import TwistSet
from fnqs_eval.observables.cube import write_density
from fnqs_eval.observables.deformations import STRAINS, deformed_contexts, strained
from fnqs_eval.observables.estimates import curves, density, quantities, tail_exponent
from fnqs_eval.observables.observe import summarise
from fnqs_eval.observables.result import Quantity, average, from_json, to_json
from fnqs_eval.observables.sample import ObservableSettings, sample

SETTINGS = ObservableSettings(walkers=128, target_error=1e-9, max_measurements=64)


class Case:
    """A disordered cell of two atoms with an untrained psi, far from optimal, sampled."""

    def __init__(self, config, record: Record):
        self.wavefunction, self.record = WaveFunction(config), record
        system = make_system(record.configuration, config)
        self.params = jax.jit(self.wavefunction.init)(jax.random.key(0), system)
        self.samples = sample(self.wavefunction, self.params, record, SETTINGS, SamplingProgress())
        self.found = quantities(self.samples)


@pytest.fixture(scope="module")
def case(small_model, make_bcc):
    return Case(small_model, make_bcc(1))


def energy_slopes(case: Case, changes, step, walkers=1024):
    """Slopes dE/dx by correlated sampling: other configurations, the same electrons moved along, weights psi^2."""
    config = case.wavefunction.config
    start = equilibrate_alone(
        case.wavefunction,
        case.params,
        case.record,
        walkers=walkers,
        least_sweeps=60,
        seed=7,
        progress=SamplingProgress(),
    )
    electrons = jnp.asarray(start.walkers)
    twisted = bool(np.any(case.record.configuration.twist))
    log_psi = jax.jit(
        lambda context, r: jax.vmap(lambda one: case.wavefunction.log_psi(case.params, context, one)[1])(r[0])
    )
    energies_of = jax.jit(
        lambda contexts, systems, r: jnp.real(
            local_energies(case.wavefunction, case.params, contexts, systems, r, chunk=256)
        )[0]
    )
    encode = jax.jit(jax.vmap(case.wavefunction.encode, (None, 0)))
    here = np.asarray(log_psi(jax.tree.map(lambda leaf: leaf[0], start.contexts), electrons), np.float64)
    slopes = []
    for change in changes:
        weighted = []
        for sign in (1, -1):
            configuration, turn = change(sign * step)
            systems = stack_systems([make_system(configuration, config, force_complex=twisted)])
            contexts = encode(case.params, systems)
            moved = (np.asarray(electrons, np.float64) @ turn).astype(np.float32)
            log = np.asarray(log_psi(jax.tree.map(lambda leaf: leaf[0], contexts), moved), np.float64)
            weights = np.exp(2 * (log - here - np.median(log - here)))
            energies = np.asarray(energies_of(contexts, systems, moved), np.float64)
            weights /= weights.mean()
            mean = np.mean(weights * energies)
            weighted.append((mean, weights * (energies - mean)))
        (upper, own_upper), (lower, own_lower) = weighted
        error = np.std(own_upper - own_lower, ddof=1) / np.sqrt(walkers)
        slopes.append(((upper - lower) / (2 * step), error / (2 * step)))
    return np.array(slopes).T


@pytest.mark.slow
def test_stress_and_forces_are_derivatives_of_the_energy(case):
    """An untrained psi: the covariance is as large as the rest, and both together are the slope of its energy."""
    record, volume = case.record, abs(np.linalg.det(case.record.configuration.cell))

    def strain(amount):
        configuration = strained(record.configuration, amount * np.eye(3))
        return configuration, (1 + amount) * np.eye(3)

    def push(amount):
        protons = np.array(record.configuration.protons)
        protons[0, 2] += amount
        return dataclasses.replace(record.configuration, protons=protons), np.eye(3)

    slopes, errors = energy_slopes(case, [strain, push], step=0.01)
    pressure, force = case.found["pressure"], case.found["forces"]
    apart = 3 * volume * pressure.values + slopes[0]
    assert abs(apart) < 4 * np.hypot(3 * volume * pressure.errors, errors[0])
    assert abs(force.values[0, 2] + slopes[1]) < 4 * np.hypot(force.errors[0, 2], errors[1])
    assert 3 * volume * pressure.errors < 0.25 * abs(slopes[0])
    covariance = case.found["pressure_covariance"]
    assert abs(covariance.values) > 5 * covariance.errors


@pytest.mark.slow
def test_the_trace_of_the_stress_is_three_times_the_pressure(case):
    found = case.found
    trace = np.sum(found["stress"].values[:3])
    assert trace == pytest.approx(-3 * found["pressure"].values, rel=1e-9)
    virial = found["pressure"].values - found["pressure_covariance"].values
    assert virial == pytest.approx(found["virial_pressure"].values, abs=1e-5)  # float32
    volume = abs(np.linalg.det(case.record.configuration.cell))
    parts = sum(found[name].values for name in ("electron_electron", "electron_proton", "proton_proton"))
    assert parts == pytest.approx(found["potential"].values, abs=1e-9)
    expected = 2 * (2 * found["kinetic"].values + found["potential"].values) / (3 * volume)
    assert found["virial_pressure"].values == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_no_net_force_and_a_finite_variance(case):
    found = case.found
    np.testing.assert_allclose(found["forces"].values.sum(axis=0), 0, atol=1e-9)
    net = found["net_force"]
    assert np.all(np.abs(net.values) < 4.5 * net.errors)
    assert found["bare_tail"].values < 2  # 3/2: infinite
    assert found["force_tail"].values > 2
    bare = found["bare_hellmann_feynman"].errors
    assert np.mean(found["forces"].errors) < 2 * np.mean(bare)


@pytest.mark.slow
def test_density_and_curves_count_every_electron(case, tmp_path):
    samples = case.samples
    charge, spin = density(samples)
    voxel = abs(np.linalg.det(samples.cell)) / charge.size
    assert charge.sum() * voxel == pytest.approx(2, abs=1e-9)
    assert spin.sum() * voxel == pytest.approx(0, abs=1e-9)
    write_density(tmp_path / "charge.cube", samples, charge, "electrons")
    with open(tmp_path / "charge.cube") as file:
        read: Any = ase.io.cube.read_cube(file)
    np.testing.assert_allclose(read["data"], charge, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(read["atoms"].cell.array / units.Bohr, samples.cell, atol=1e-5)
    found = curves(samples)
    waves = found["wave"].values
    structure = np.exp(1j * np.asarray(case.record.configuration.protons) @ waves.T).sum(axis=0)
    np.testing.assert_allclose(found["s_protons"].values, np.abs(structure) ** 2 / 2, atol=1e-9)
    total, fluctuating = found["s_total"], found["s_fluctuating"]
    assert np.all(total.values >= -1e-9)
    assert np.all(fluctuating.values < total.values + 5 * total.errors)
    assert np.abs(fluctuating.values[-1] - 1) < 0.2  # short waves see single electrons
    occupation = found["occupation"]
    assert 2 * occupation.values.sum() == pytest.approx(2, abs=5 * 2 * np.sqrt(np.sum(occupation.errors**2)) + 0.2)
    assert "g_equal_spins" not in found  # there is one electron of each


@pytest.mark.slow
def test_results_survive_the_journal_and_average(case):
    result = summarise(case.samples, SETTINGS)
    again = from_json(json.loads(json.dumps(to_json(result), allow_nan=False)))
    assert again.quantities.keys() == result.quantities.keys()
    for name, quantity in result.quantities.items():
        np.testing.assert_allclose(again.quantities[name].values, quantity.values)
    assert result.finite_size[-1]["recipe"] == "random-phase approximation"
    twists = TwistSet("two", np.zeros((2, 3)), np.array([0.25, 0.75]))
    shifted = {name: Quantity(q.unit, np.asarray(q.values) + 1, q.errors) for name, q in result.quantities.items()}
    other = dataclasses.replace(result, quantities=shifted)
    mean = average([result, other], twists)
    assert mean.twist is None
    np.testing.assert_allclose(mean.quantities["forces"].values, result.quantities["forces"].values + 0.75)
    errors = np.asarray(result.quantities["stress"].errors)
    np.testing.assert_allclose(mean.quantities["stress"].errors, errors * np.sqrt(0.25**2 + 0.75**2))
    assert "force_tail" not in mean.quantities


def test_deformed_cells_are_the_right_ones(small_model, make_bcc):
    record = make_bcc(2)
    wavefunction = WaveFunction(small_model)
    params = jax.jit(wavefunction.init)(jax.random.key(0), make_system(record.configuration, small_model))
    encode = jax.jit(jax.vmap(wavefunction.encode, (None, 0)))
    deformed = deformed_contexts(encode, params, record.configuration, small_model, "all")
    assert deformed.contexts is not None
    assert deformed.contexts.protons.shape == (len(STRAINS) + 6, 2, 2, 3)
    moved = deformed.contexts.protons[6 + 4, 0] - record.configuration.protons
    np.testing.assert_allclose(moved, [[0, 0, 0], [0, 0.01, 0]], atol=1e-6)  # float32
    assert deformed_contexts(encode, params, record.configuration, small_model, "none").contexts is None


def test_tail_exponents_of_known_tails():
    generator = np.random.default_rng(0)
    heavy = generator.pareto(1.5, 200_000) * generator.choice([-1, 1], 200_000)
    assert tail_exponent(heavy) == pytest.approx(1.5, abs=0.2)
    assert tail_exponent(generator.normal(size=200_000)) > 5


BCC = """2
Lattice="1.6 0 0 0 1.6 0 0 0 1.6" Properties=species:S:1:pos:R:3 pbc="T T T"
H 0.0 0.0 0.0
H 0.8 0.8 0.74
"""


@pytest.mark.slow
def test_the_command_and_its_journal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bcc.extxyz").write_text(BCC + BCC.replace("0.74", "0.84"))
    quick = ["--walkers", "32", "--measurements", "8", "--error", "1e-9", "--derivatives", "stress", "--cube", "cubes"]
    command = ["observables", "foundation", "--configurations", "bcc.extxyz", *quick, "--output", "found.json"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for wanted in ("virial P", "finite size", "E/N raw", "stress (GPa", "stopped before the error bar"):
        assert wanted in printed
    document = json.loads((tmp_path / "found.json").read_text())
    first, second = document["results"]
    # Mirror images: the same crystal, other walkers.
    for name in ("energy", "virial_pressure"):
        one, other = (row["quantities"][name] for row in (first, second))
        assert abs(one["values"] - other["values"]) < 6 * np.hypot(one["errors"], other["errors"])
    assert sorted(path.name for path in (tmp_path / "cubes").iterdir())[0] == "0000-bcc.extxyz-0-charge.cube"
    assert not list(tmp_path.glob("*.jsonl"))
    assert main([*command, "--twists", "nonsense"]) == 2
    assert "give a grid" in capsys.readouterr().err
