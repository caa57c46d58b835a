"""Diffusion Monte Carlo from a checkpoint: the guide, the estimates, and the command with its journal."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.configuration import make_configuration
from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_eval.commands import main
from fnqs_eval.dmc.estimate import extrapolate, projected_energy
from fnqs_eval.dmc.projector import make_block, make_guide
from fnqs_eval.energies.journal import Journal

BCC = """2
Lattice="2.0 0 0 0 2.0 0 0 0 2.0" Properties=species:S:1:pos:R:3 pbc="T T T"
H 0.0 0.0 0.0
H 1.0 1.0 1.0
"""
OPTIONS = ["--configurations", "bcc.extxyz", "--walkers", "32", "--blocks", "12", "--projection", "4", "--window", "2"]


class Killed(BaseException):
    """Stands for a kill in the middle."""


def prepared(model, twist):
    """A wave function with parameters, system and context of four protons, and walkers (6, 4, 3)."""
    cell, protons = 4.5 * np.eye(3), [[0.1, 0, 0], [2.3, 2.0, 0], [2.1, 0, 2.3], [0, 2.2, 2.4]]
    system = make_system(make_configuration(cell, protons, twist), model)
    wavefunction = WaveFunction(model)
    params = wavefunction.init(jax.random.key(0), system)
    walkers = jnp.asarray(protons, jnp.float32) + 0.6 * jax.random.normal(jax.random.key(1), (6, 4, 3), jnp.float32)
    return wavefunction, params, system, jax.jit(wavefunction.encode)(params, system), walkers


@pytest.mark.parametrize("twist", [(0.0, 0.0, 0.0), (0.1, 0.2, 0.3)])
def test_the_drift_is_the_gradient_of_the_guide(small_model, twist):
    wavefunction, params, system, context, walkers = prepared(small_model, twist)
    guide = jax.jit(make_guide(wavefunction, params, context, system, chunk=3))(walkers)
    slope = jax.jit(jax.vmap(jax.grad(lambda r: wavefunction.log_psi(params, context, r)[1])))(walkers)
    np.testing.assert_allclose(guide.drift, slope, rtol=1e-3, atol=1e-3)  # float32, by two ways
    assert not jnp.iscomplexobj(guide.energy)
    assert jnp.iscomplexobj(guide.phase) == any(twist)


def test_walkers_computed_together_change_nothing(small_model):
    wavefunction, params, system, context, walkers = prepared(small_model, (0.0, 0.0, 0.0))
    arguments = (params, context, system, walkers, jnp.asarray(-1.0), jax.random.key(2), 0.02)
    found = [make_block(wavefunction, chunk, steps=3)(*arguments) for chunk in (2, 6)]
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-4)  # float32 rounding, three steps on
    np.testing.assert_allclose(found[0][1].energy, found[1][1].energy, atol=1e-3)


def test_a_straight_line_is_found_with_its_error():
    taus, errors = [0.04, 0.02, 0.01], [1e-3, 2e-3, 1e-3]
    line = extrapolate(taus, [-1.0 + 0.5 * tau for tau in taus], errors)
    assert line is not None
    assert line.energy == pytest.approx(-1.0, abs=1e-12)
    assert line.slope == pytest.approx(0.5, abs=1e-10)
    assert line.chi_square == pytest.approx(0.0, abs=1e-12)
    two = extrapolate([0.02, 0.01], [1.0, 1.0], [1e-3, 1e-3])
    assert two is not None
    assert two.error == pytest.approx(1e-3 * np.sqrt(5), rel=1e-9)  # E(0) = 2 E(0.01) - E(0.02)
    assert two.chi_square is None
    assert extrapolate([0.01], [1.0], [1e-3]) is None


def test_equal_weights_give_the_plain_mean():
    energies = np.random.default_rng(0).normal(-1.0, 0.1, 4000)
    found = projected_energy(energies, np.full(4000, 0.3), skip=100, window=50)
    assert found.estimate.mean == pytest.approx(np.mean(energies[100:]), abs=1e-9)
    assert found.plain == pytest.approx(found.estimate.mean, abs=1e-9)
    assert found.weight_share == pytest.approx(1.0, abs=1e-9)
    assert found.estimate.error == pytest.approx(0.1 / np.sqrt(3900), rel=0.2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the configuration and the results of a whole run at two time steps."""
    folder = tmp_path_factory.mktemp("dmc")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "bcc.extxyz").write_text(BCC)
        assert main(["dmc", "foundation", *OPTIONS, "--output", "whole.json"]) == 0
    return folder


@pytest.mark.slow
def test_energies_at_both_time_steps_and_at_none(place):
    rows = json.loads((place / "whole.json").read_text())["results"]
    assert [row["time_step"] for row in rows] == [0.02, 0.01, 0.0]
    for row in rows[:2]:
        assert row["acceptance"] > 0.95
        assert row["kept"] == "nodes"
        error = np.hypot(row["error_per_atom"], row["vmc_error_per_atom"])
        assert row["energy_per_atom"] - row["vmc_energy_per_atom"] < 4 * error  # no node: the ground state
        assert abs(row["energy_per_atom"] + 0.92068) < 5 * row["error_per_atom"] + 2e-3  # QMCPACK's tests, DMC
    first, second, zero = (row["energy_per_atom"] for row in rows)
    assert min(first, second) - 0.02 < zero < max(first, second) + 0.02
    assert (place / "whole.csv").read_text().count("\n") == 4
    assert not list(place.glob("*.journal.jsonl"))


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_numbers(place, monkeypatch):
    monkeypatch.chdir(place)
    append = Journal.append

    def once(self, results):
        append(self, results)
        raise Killed

    command = ["dmc", "foundation", *OPTIONS, "--output", "parts.json"]
    monkeypatch.setattr(Journal, "append", once)
    with pytest.raises(Killed):
        main(command)
    monkeypatch.setattr(Journal, "append", append)
    assert main(command) == 0
    whole, parts = (json.loads((place / f"{name}.json").read_text())["results"] for name in ("whole", "parts"))
    assert [row["energy_per_atom"] for row in parts] == [row["energy_per_atom"] for row in whole]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--time-steps", "0.02,0.02"], "--time-steps 0.02,0.02"),
        (["--time-steps", "none"], "--time-steps none"),
        (["--output", "x.csv"], "name the JSON file"),
    ],
)
def test_wrong_options_take_one_sentence(tmp_path, monkeypatch, capsys, options, wanted):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bcc.extxyz").write_text(BCC)
    assert main(["dmc", "foundation", "--configurations", "bcc.extxyz", *options]) == 2
    message = capsys.readouterr().err
    assert wanted in message
    assert message.count("\n") == 1
