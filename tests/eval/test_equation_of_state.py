"""Fits of E(V), enthalpies and crossings of known curves, and what the command refuses."""

import json

import numpy as np
import pytest

from fnqs.configuration import make_configuration, wigner_seitz_radius
from fnqs.errors import InputError
from fnqs_data.store.record import Record
from fnqs_eval.commands import main
from fnqs_eval.observables.eos_command import at_density, parse_densities
from fnqs_eval.observables.equation_of_state import crossings, fit

VOLUMES = 4 * np.pi / 3 * np.linspace(1.2, 2.0, 9) ** 3
METAL, MOLECULES = (1.105, -0.95, 0.02), (1.30, -1.05, -0.02)
"""Coefficients of 1 / r_s^2, 1 / r_s and 1."""

ERROR = 2e-4


def radius(volume):
    return (3 * volume / (4 * np.pi)) ** (1 / 3)


def energy(volume, coefficients):
    second, first, constant = coefficients
    return second / radius(volume) ** 2 + first / radius(volume) + constant


def pressure(volume, coefficients):
    second, first, _ = coefficients
    return (2 * second / radius(volume) ** 3 + first / radius(volume) ** 2) / (4 * np.pi * radius(volume) ** 2)


def state(coefficients, noise=0.0, seed=0):
    shaken = noise * np.random.default_rng(seed).standard_normal(len(VOLUMES))
    return fit(VOLUMES, energy(VOLUMES, coefficients) + shaken, np.full(len(VOLUMES), ERROR))


def test_pressure_and_enthalpy_of_a_known_curve():
    found = state(METAL)
    np.testing.assert_allclose(found.pressure(VOLUMES)[0], pressure(VOLUMES, METAL), rtol=1e-7)
    middle = VOLUMES[4]
    at = pressure(middle, METAL)
    assert found.enthalpy(at)[0] == pytest.approx(energy(middle, METAL) + at * middle, abs=1e-8)
    assert np.isnan(found.enthalpy(100.0)).all()
    assert found.chi_square < 1e-9


def test_errors_of_the_fit_are_those_of_the_noise():
    """The spread of pressures over many noisy data sets is what the draws of one of them say."""
    fits = [state(METAL, ERROR, seed) for seed in range(40)]
    spread = np.std([one.pressure(VOLUMES[4:5])[0] for one in fits])
    told = np.std(fits[0].pressure(VOLUMES[4:5])[1:])
    assert told == pytest.approx(spread, rel=0.35)  # 40 data sets know it to 11 percent
    assert np.mean([one.chi_square for one in fits]) == pytest.approx(1, abs=0.35)


def test_two_phases_cross_where_their_enthalpies_are_equal():
    def enthalpy(at, coefficients):
        fine = np.linspace(VOLUMES[0], VOLUMES[-1], 400_001)
        return np.min(energy(fine, coefficients) + at * fine)

    [found] = crossings(state(METAL), state(MOLECULES))
    step = 1e-3 * found.pressure
    below, above = (
        enthalpy(found.pressure + sign * step, METAL) - enthalpy(found.pressure + sign * step, MOLECULES)
        for sign in (-1, 1)
    )
    assert below * above < 0
    assert 0 < found.error < 0.5 * abs(found.pressure)
    assert found.share > 0.9
    assert crossings(state(METAL), state((1.105, -0.95, 0.5))) == []


def test_densities():
    assert parse_densities("1.2:1.6:3") == pytest.approx([1.2, 1.4, 1.6])
    assert parse_densities("1.5,1.3,1.4") == [1.3, 1.4, 1.5]
    for wrong in ("1.2", "1.2,1.3", "a,b,c", "1:2", "0.1,1,2"):
        with pytest.raises(InputError, match="--r-s"):
            parse_densities(wrong)


def test_a_scaled_structure_keeps_its_shape():
    record = Record(configuration=make_configuration(3 * np.eye(3), [[0, 0, 0], [1.5, 1.5, 1.4]]), identifier="a")
    scaled = at_density(record, 1.7)
    assert wigner_seitz_radius(scaled.configuration) == pytest.approx(1.7)
    ratio = scaled.configuration.protons / np.where(record.configuration.protons == 0, 1, record.configuration.protons)
    assert np.ptp(ratio[1]) < 1e-12
    with pytest.raises(InputError, match="closer than"):
        at_density(record, 0.15)


BCC = """2
Lattice="1.6 0 0 0 1.6 0 0 0 1.6" Properties=species:S:1:pos:R:3 pbc="T T T"
H 0.0 0.0 0.0
H 0.8 0.8 0.8
"""


@pytest.mark.slow
def test_the_command(tmp_path, monkeypatch, capsys):
    """Three densities of one cell: the routes to the pressure agree in sign and size."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bcc.extxyz").write_text(BCC)
    command = ["eos", "foundation", "--configurations", "bcc.extxyz", "--walkers", "32", "--measurements", "8"]
    command += ["--error", "1e-9", "--output", "eos.json"]
    assert main([*command, "--r-s", "1.3,1.35,1.4"]) == 0
    assert "P of the fit" in capsys.readouterr().out
    document = json.loads((tmp_path / "eos.json").read_text())
    assert [row["r_s_bohr"] for row in document["table"]] == pytest.approx([1.3, 1.35, 1.4])
    middle = document["table"][1]
    for route in ("virial_pressure_GPa", "pressure_GPa", "fit_pressure_GPa"):
        assert -3000 < middle[route] < -500  # two electrons at k = 0 only: the cell would shrink
    assert (tmp_path / "eos.png").stat().st_size > 10_000
    assert (tmp_path / "eos.csv").read_text().count("\n") == 4
    assert main([*command, "--r-s", "nonsense"]) == 2
    assert "give first:last:count" in capsys.readouterr().err
