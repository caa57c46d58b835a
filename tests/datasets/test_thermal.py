import numpy as np
import pytest
from ase import units

from fnqs_data.generate.thermal import (
    PROTON_MASS,
    molecule_frequency,
    proton_frequency,
    rms_displacement,
    silvera_goldman,
)


def test_displacement_of_an_oscillator_is_that_of_quantum_mechanics_and_of_the_classical_limit():
    frequency, mass = 0.01, 1836.0
    assert rms_displacement(frequency, mass, 0.0) == pytest.approx(np.sqrt(1.5 / (mass * frequency)))
    # Hot: <u^2> = 3 k T / (m w^2), up to (w / k T)^2 / 12 = 1e-5.
    hot = 300 * frequency * units.Hartree / units.kB
    classical = np.sqrt(3 * 300 * frequency / (mass * frequency**2))
    assert rms_displacement(frequency, mass, hot) == pytest.approx(classical, rel=1e-5)
    temperatures = np.linspace(0, 5000, 20)
    assert np.all(np.diff([rms_displacement(frequency, mass, t) for t in temperatures]) >= 0)


def test_silvera_goldman_has_its_published_well():
    # The minimum is at 3.44 angstrom, 6.50 bohr, and about 32 K deep (the paper's figure 1 and table).
    distances = np.linspace(5, 9, 4001)
    energies = np.asarray(silvera_goldman(distances))
    assert distances[energies.argmin()] == pytest.approx(6.50, abs=0.05)
    assert energies.min() * units.Hartree / units.kB == pytest.approx(-32, abs=1)


def test_frequencies_are_those_of_hydrogen():
    # Zero-point displacements of atomic hydrogen are a fifth of r_s at metallic densities (Lindemann ratios of 0.11
    # to 0.13 of the bcc neighbour distance 1.76 r_s).
    for r_s in (1.0, 1.3, 1.6):
        displacement = rms_displacement(proton_frequency(r_s), PROTON_MASS, 0.0)
        assert 0.19 < displacement / r_s < 0.23
    # Compressed molecular hydrogen: lattice modes of 500 to 2500 / cm between r_s = 1.3 and 2.
    for r_s in (1.3, 2.0):
        assert 500 < molecule_frequency(r_s) * units.Hartree / units.invcm < 2500
    assert molecule_frequency(3.5) == molecule_frequency(3.1) > 0
