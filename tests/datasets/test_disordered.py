import numpy as np
import pytest
from ase import units

from fnqs_data.generate.disordered import (
    LONGEST_BOND,
    MORSE_DEPTH,
    MORSE_DISTANCE,
    MORSE_RATE,
    Liquid,
    Surroundings,
    screening_rate,
    trajectories,
)
from fnqs_data.generate.thermal import silvera_goldman


def first_frame(liquid: Liquid, rng: np.random.Generator, **sweeps: int) -> np.ndarray:
    return trajectories(liquid, rng, 1, **sweeps)[0]


def box(batch: int, number: int, r_s: float) -> np.ndarray:
    edge = r_s * (4 * np.pi / 3 * number) ** (1 / 3)
    return np.tile(edge * np.eye(3), (batch, 1, 1))


def test_constants_of_the_interaction():
    # Morse: the curvature 2 D a^2 is the harmonic force constant of H2, 0.369 Ha/bohr^2 (5.75 mdyn/Å).
    assert pytest.approx(0.3692, abs=5e-4) == 2 * MORSE_DEPTH * MORSE_RATE**2
    assert pytest.approx(1.401, abs=5e-4) == MORSE_DISTANCE
    # Thomas-Fermi: k = 1.5632 / sqrt(r_s).
    assert screening_rate(np.array(1.0)) == pytest.approx(1.5632, abs=1e-4)
    assert screening_rate(np.array(4.0)) == pytest.approx(1.5632 / 2, abs=1e-4)


def test_bonds_fluctuate_as_the_temperature_says():
    # One molecule in a large box is a Morse oscillator with three-dimensional measure. At 1000 K its mean
    # is r_e + 2 kT / (k r_e) + 3 a kT / (2 k) and its variance kT / k to leading order (k = 2 D a^2).
    batch, temperature = 1500, 1000.0
    liquid = Liquid(box(batch, 2, 8.0), np.full(batch, temperature), np.tile([1, 0], (batch, 1)), 0.3)
    protons = first_frame(liquid, np.random.default_rng(1))
    bonds = np.linalg.norm(protons[:, 0] - protons[:, 1], axis=1)
    stiffness = 2 * MORSE_DEPTH * MORSE_RATE**2
    spread = temperature * units.kB / units.Hartree / stiffness
    mean = MORSE_DISTANCE + 2 * spread / MORSE_DISTANCE + 1.5 * MORSE_RATE * spread
    error = np.sqrt(spread / batch)
    # Four standard errors of 1500 independent molecules, and the next order of the expansion (about 2e-3).
    assert bonds.mean() == pytest.approx(mean, abs=4 * error + 2e-3)
    assert bonds.max() < LONGEST_BOND
    # The variance of 1500 samples is known to 4 %; anharmonicity adds some 5 %: 25 % leaves room for both.
    assert bonds.var() == pytest.approx(spread, rel=0.25)


def test_unbonded_protons_keep_apart():
    batch, number, r_s = 40, 8, 1.4
    liquid = Liquid(box(batch, number, r_s), np.full(batch, 2000.0), np.full((batch, number), -1), 0.9)
    protons = first_frame(liquid, np.random.default_rng(2))
    edge = liquid.cells[0, 0, 0]
    difference = protons[:, :, None] - protons[:, None]
    difference -= edge * np.round(difference / edge)
    distance = np.linalg.norm(difference, axis=-1)[:, ~np.eye(number, dtype=bool)]
    # Random places would put half of these configurations below 0.7 bohr.
    assert np.quantile(distance.min(axis=1), 0.1) > 1.2


def test_sampling_is_reproducible():
    liquid = Liquid(box(3, 4, 1.5), np.full(3, 2000.0), np.full((3, 4), -1), 0.9)
    first, second = (first_frame(liquid, np.random.default_rng(7), sweeps=6) for _ in range(2))
    assert np.array_equal(first, second)


def liquid_of(kind: str, batch: int, number: int, r_s: float, temperature: float) -> Liquid:
    partners = np.full((batch, number), -1)
    for i in range({"atomic": 0, "mixed": number // 4, "molecular": number // 2}[kind]):
        partners[:, 2 * i], partners[:, 2 * i + 1] = 2 * i + 1, 2 * i
    return Liquid(box(batch, number, r_s), np.full(batch, temperature), partners, 0.9)


def energies(liquid: Liquid, protons: np.ndarray) -> np.ndarray:
    r_s = (3 * np.abs(np.linalg.det(liquid.cells)) / (4 * np.pi * protons.shape[1])) ** (1 / 3)
    around = Surroundings(liquid, np.linalg.inv(liquid.cells), screening_rate(r_s))
    each = [around.proton_energy(protons[:, i], i, protons) for i in range(protons.shape[1])]
    return np.sum(each, axis=0)


@pytest.mark.parametrize(
    ("kind", "r_s", "temperature"),
    [("atomic", 1.4, 3000.0), ("mixed", 1.6, 2000.0), ("molecular", 1.6, 1500.0)],
)
def test_frames_of_a_trajectory_are_decorrelated(kind, r_s, temperature):
    liquid = liquid_of(kind, 80, 16, r_s, temperature)
    first, second = trajectories(liquid, np.random.default_rng(5), 2)
    # Protons have moved by more than half of r_s, about a third of the distance of neighbours ...
    assert np.sqrt(np.mean(np.sum((second - first) ** 2, axis=-1))) > 0.5 * r_s
    # ... and the energies have forgotten each other: 80 pairs have a correlation of 0 +- 0.11 if independent.
    before, after = energies(liquid, first), energies(liquid, second)
    assert np.corrcoef(before, after)[0, 1] < 0.4
    # The first frame is in equilibrium already: the means agree within a fifth of kT per proton.
    kt = temperature * units.kB / units.Hartree
    error = np.hypot(before.std(), after.std()) / np.sqrt(80)
    assert abs(before.mean() - after.mean()) / 16 < 0.2 * kt + 4 * error / 16


def test_molecules_of_a_liquid_stay_whole_and_apart():
    liquid = liquid_of("molecular", 20, 16, 1.5, 1500.0)
    for protons in trajectories(liquid, np.random.default_rng(6), 2, sweeps=40, between=10):
        bonds = np.linalg.norm(protons[:, 0::2] - protons[:, 1::2], axis=-1)
        assert bonds.max() < LONGEST_BOND
        assert bonds.mean() == pytest.approx(1.40, abs=0.1)  # what the issue of the data layer asks of g(r)


def test_one_image_is_enough_in_large_cells():
    # The same 54 protons with all images (as the small cells use) and with the nearest only.
    liquid = liquid_of("atomic", 4, 54, 1.2, 3000.0)
    protons = first_frame(liquid, np.random.default_rng(8), sweeps=10)
    around = Surroundings(liquid, np.linalg.inv(liquid.cells), screening_rate(np.full(4, 1.2)))
    shifts = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3) @ liquid.cells[0]
    for i in (0, 5):
        near = around.proton_energy(protons[:, i], i, protons)
        images = protons[:, i, None, None] - np.delete(protons, i, axis=1)[:, :, None] + shifts
        distance = np.linalg.norm(images, axis=-1)
        rate = screening_rate(np.array(1.2))
        every = np.sum(np.exp(-rate * distance) / distance, axis=(1, 2))
        # What is left out is nearly the same everywhere: its differences are below a third of kT (0.0095 Ha).
        assert np.ptp(every - near) < 0.003


def test_two_molecules_repel_as_silvera_and_goldman_say_where_the_docstring_claims_it():
    # The average over both orientations of four screened pairs: (sinh x / x)^2, x = k d / 2.
    for r_s in (1.4, 1.6):
        rate = float(screening_rate(np.array(r_s)))
        argument = rate * MORSE_DISTANCE / 2
        for distance in (2.8, 3.4, 4.0):
            ours = 4 * np.exp(-rate * distance) / distance * (np.sinh(argument) / argument) ** 2
            assert 1 / 1.6 < ours / silvera_goldman(distance) < 1.6
