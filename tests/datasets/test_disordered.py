import numpy as np
import pytest
from ase import units

from fnqs_data.generate.disordered import (
    LONGEST_BOND,
    MORSE_DEPTH,
    MORSE_DISTANCE,
    MORSE_RATE,
    Liquid,
    sample,
    screening_rate,
)


def box(batch: int, number: int, density: float) -> np.ndarray:
    edge = density * (4 * np.pi / 3 * number) ** (1 / 3)
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
    protons = sample(liquid, np.random.default_rng(1))
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
    batch, number, density = 40, 8, 1.4
    liquid = Liquid(box(batch, number, density), np.full(batch, 2000.0), np.full((batch, number), -1), 0.9)
    protons = sample(liquid, np.random.default_rng(2))
    edge = liquid.cells[0, 0, 0]
    difference = protons[:, :, None] - protons[:, None]
    difference -= edge * np.round(difference / edge)
    distance = np.linalg.norm(difference, axis=-1)[:, ~np.eye(number, dtype=bool)]
    # Random places would put half of these configurations below 0.7 bohr.
    assert np.quantile(distance.min(axis=1), 0.1) > 1.2


def test_sampling_is_reproducible():
    liquid = Liquid(box(3, 4, 1.5), np.full(3, 2000.0), np.full((3, 4), -1), 0.9)
    first, second = (sample(liquid, np.random.default_rng(7), sweeps=6) for _ in range(2))
    assert np.array_equal(first, second)
