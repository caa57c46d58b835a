"""The Ewald energy against Madelung constants, a brute-force sum, and its own symmetries."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.special import erfc

from fnqs.configuration import Configuration, find_fault, wigner_seitz_radius
from fnqs.ewald import ewald_energy, make_ewald, numbers_of_vectors
from fnqs.periodic.cell import cell_volume, reciprocal_vectors

FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
HALF_EDGE = np.array([0.5, 0, 0])
ROUNDING = 1e-10
"""Ha per particle: float64 rounding, and the truncation in compact cells, far below the 1e-7 aimed at."""

compiled_energy = jax.jit(ewald_energy)


def make(cell, protons):
    return Configuration(np.asarray(cell, float), np.asarray(protons, float), np.zeros(3))


def energy(configuration, electrons, **options):
    return float(compiled_energy(make_ewald(configuration, **options), jnp.asarray(electrons, jnp.float64)))


def random_case(number, seed=0, skew=0.15):
    """A triclinic cell of r_s = 1.4 with random protons and electrons on a jittered grid: no close pairs."""
    generator = np.random.default_rng(seed)
    length = (4 * np.pi * number / 3) ** (1 / 3) * 1.4
    cell = length * (np.eye(3) + generator.uniform(-skew, skew, (3, 3)))
    points = np.array(list(itertools.product(range(4), repeat=3)))[generator.permutation(64)[: 2 * number]]
    points = (points + 0.5 + generator.uniform(-0.2, 0.2, points.shape)) / 4 @ cell
    return make(cell, points[:number]), points[number:]


def brute_force(cell, positions, charges):
    """Textbook Ewald sum over boxes of lattice and reciprocal vectors, in Ha; any charges, with background.

    Its splitting is sqrt(pi) over the cube root of the volume, and both sums stop where the terms are below
    exp(-36), 2e-16.
    """
    volume = abs(cell_volume(cell))
    splitting, cutoff = np.sqrt(np.pi) / volume ** (1 / 3), 6.0
    reciprocal = reciprocal_vectors(cell)

    def box(limits):
        return np.array(list(itertools.product(*[range(-n, n + 1) for n in limits])))

    difference = positions[:, None] - positions[None]
    fractions = difference @ np.linalg.inv(cell)
    difference = (fractions - np.floor(fractions)) @ cell
    heights = 2 * np.pi / np.linalg.norm(reciprocal, axis=1)
    images = box(np.ceil(cutoff / splitting / heights).astype(int) + 1) @ cell
    total = 0.0
    for image in images:
        distance = np.linalg.norm(difference + image, axis=-1)
        distance[distance < 1e-12] = np.inf
        total += 0.5 * charges @ (erfc(splitting * distance) / distance) @ charges
    limits = np.floor(2 * splitting * cutoff * np.linalg.norm(cell, axis=1) / (2 * np.pi)).astype(int)
    waves = box(limits) @ reciprocal
    square = np.sum(waves**2, 1)
    waves, square = waves[square > 0], square[square > 0]
    structure = np.exp(1j * waves @ positions.T) @ charges
    total += 2 * np.pi / volume * np.sum(np.exp(-square / (4 * splitting**2)) / square * np.abs(structure) ** 2)
    total -= splitting / np.sqrt(np.pi) * charges @ charges
    return total - np.pi / (2 * volume * splitting**2) * charges.sum() ** 2


def brute_force_energy(configuration, electrons):
    number = len(electrons)
    charges = np.concatenate([np.ones(number), -np.ones(number)])
    return brute_force(configuration.cell, np.concatenate([configuration.protons, electrons]), charges)


# The published constants have 11 digits.
def test_madelung_constant_of_sodium_chloride():
    lattice = make(np.eye(3) * 2, FCC * 2)
    assert -energy(lattice, (FCC + HALF_EDGE) * 2) / 4 == pytest.approx(1.7475645946, abs=2e-10)


def test_madelung_constant_of_caesium_chloride():
    lattice = make(np.eye(3) * 2, np.zeros((1, 3)))
    assert -energy(lattice, np.ones((1, 3))) * np.sqrt(3) == pytest.approx(1.7626747731, abs=2e-10)


def test_bcc_protons_in_a_background():
    cell = np.eye(3) * 3.0
    lattice = make(cell, [[0, 0, 0], [1.5, 1.5, 1.5]])
    radius = wigner_seitz_radius(lattice)
    lists = make_ewald(lattice)
    # `constant` holds the protons' energy and the electrons' self-energy; a background takes the place of
    # the electrons when the latter is removed and the usual charge term added.
    own = np.linalg.norm(lists.images[1:], axis=1)
    split = float(lists.splitting)
    electron_self = np.sum(erfc(split * own) / own) - 2 * split / np.sqrt(np.pi)
    in_background = float(lists.constant) - electron_self - np.pi * 2**2 / (2 * 27 * split**2)
    assert in_background / 2 == pytest.approx(-0.895929 / radius, abs=1e-6)  # digits of the constant
    assert brute_force(cell, lattice.protons, np.ones(2)) / 2 == pytest.approx(-0.895929 / radius, abs=1e-6)


@pytest.mark.parametrize("number", [2, 8, 18])
def test_equals_the_brute_force_sum(number):
    configuration, electrons = random_case(number)
    expected = brute_force_energy(configuration, electrons)
    assert energy(configuration, electrons) == pytest.approx(expected, abs=ROUNDING * number)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 0.45), st.floats(1.0, 2.7))
def test_equals_the_brute_force_sum_in_any_triclinic_cell(seed, skew, radius):
    configuration, electrons = random_case(2, seed, skew)
    scale = radius / 1.4
    configuration = make(configuration.cell * scale, configuration.protons * scale)
    if find_fault(configuration):
        return
    expected = brute_force_energy(configuration, electrons * scale)
    # the accuracy that the numbers of vectors are made for
    assert energy(configuration, electrons * scale) == pytest.approx(expected, abs=1e-7 * 4)


@pytest.mark.parametrize("number", [2, 8, 18])
@pytest.mark.parametrize("shape", [(0.25, 0.25, 16), (0.25, 0.34, 11.77), (0.25, 0.5, 8), (0.25, 2, 2), (0.5, 0.5, 4)])
def test_is_accurate_in_the_thinnest_cells_accepted(number, shape):
    length = (4 * np.pi * number / 3) ** (1 / 3) * 1.4
    generator = np.random.default_rng(number)
    cell = np.diag(np.array(shape) * 1.001 * length)
    cell[2] += 0.4 * cell[0] - 0.3 * cell[1]
    protons, electrons = generator.random((2, number, 3)) @ cell
    configuration = make(cell, protons)
    expected = brute_force_energy(configuration, electrons)
    assert energy(configuration, electrons) == pytest.approx(expected, abs=1e-7 * 2 * number)  # the accuracy asked


@pytest.mark.parametrize("number", [4, 8])
def test_does_not_depend_on_the_convergence_parameters(number):
    configuration, electrons = random_case(number)
    splitting = float(make_ewald(configuration).splitting)
    expected = energy(configuration, electrons, accuracy=1e-12)
    for options in ({}, {"splitting": 0.9 * splitting}, {"splitting": 1.1 * splitting}, {"accuracy": 1e-9}):
        # 10 % off the balance the larger truncation error still is below 1e-9
        assert energy(configuration, electrons, **options) == pytest.approx(expected, abs=1e-9 * number)
    assert abs(energy(configuration, electrons, splitting=3 * splitting) - expected) > 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_symmetries(seed):
    number = 4
    configuration, electrons = random_case(number, seed)
    cell, protons = configuration.cell, configuration.protons
    expected = pytest.approx(energy(configuration, electrons), abs=ROUNDING * number)
    generator = np.random.default_rng(seed)
    together = generator.normal(size=3) * 10
    shifts = generator.integers(-3, 4, (2, number, 3)) @ cell
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    order = generator.permutation(number)
    assert energy(make(cell, protons + together), electrons + together) == expected
    assert energy(make(cell, protons + shifts[0]), electrons + shifts[1]) == expected
    assert energy(make(cell, protons[order]), electrons[order[::-1]]) == expected
    assert energy(make(cell @ rotation, protons @ rotation), electrons @ rotation) == expected
    assert energy(make(cell, electrons), protons) == expected, "charge conjugation"


def test_does_not_depend_on_the_basis_of_the_lattice():
    configuration, electrons = random_case(4)
    for unimodular in (
        [[1, 0, 0], [1, 1, 0], [0, -1, 1]],
        [[0, 1, 0], [1, 0, 0], [2, 3, 1]],
        np.diag([1, 1, -1]),
    ):
        other = make(np.array(unimodular) @ configuration.cell, configuration.protons)
        assert energy(other, electrons) == pytest.approx(energy(configuration, electrons), abs=ROUNDING * 4)


def test_supercells_have_the_energy_of_their_parts():
    configuration, electrons = random_case(4)
    for repeats in ((2, 1, 1), (1, 1, 3), (2, 2, 2)):
        steps = np.array(list(itertools.product(*map(range, repeats)))) @ configuration.cell
        copies = (configuration.protons + steps[:, None]).reshape(-1, 3)
        supercell = make(np.diag(repeats) @ configuration.cell, copies)
        total = energy(supercell, (electrons + steps[:, None]).reshape(-1, 3))
        assert total / len(steps) == pytest.approx(energy(configuration, electrons), abs=ROUNDING * 4)


def test_scales_as_one_over_length():
    configuration, electrons = random_case(8)
    scaled = make(configuration.cell * 1.7, configuration.protons * 1.7)
    expected = energy(configuration, electrons) / 1.7
    assert energy(scaled, electrons * 1.7) == pytest.approx(expected, abs=ROUNDING * 8)


def test_forces_are_the_slope_of_the_energy():
    configuration, electrons = random_case(4)
    lists = make_ewald(configuration)
    force = np.asarray(jax.jit(jax.grad(ewald_energy, argnums=1))(lists, jnp.asarray(electrons)))
    step = 1e-4
    for i, x in itertools.product(range(4), range(3)):
        moved = [electrons.copy(), electrons.copy()]
        moved[0][i, x] += step
        moved[1][i, x] -= step
        slope = (energy(configuration, moved[0]) - energy(configuration, moved[1])) / (2 * step)
        assert force[i, x] == pytest.approx(slope, abs=1e-6)  # step^2 times third derivatives of order 10


def test_waves_count_in_whole_shells():
    lists = make_ewald(make(np.eye(3) * 3, [[0.3, 0.1, 0.2], [1.4, 1.6, 1.2]]))
    length = np.sum(lists.waves**2, 1).round().astype(int)
    weighted = lists.wave_weights > 0
    for shell in np.unique(length):
        assert len(np.unique(weighted[length == shell])) == 1


@pytest.mark.parametrize("number", [2, 16, 32])
def test_float32_agrees_with_float64(number):
    configuration, electrons = random_case(number)
    lists = make_ewald(configuration)
    single = compiled_energy(lists, jnp.asarray(electrons, jnp.float32))
    assert single.dtype == jnp.float32
    # Sums of about 1 Ha per particle and distances of up to 10 bohr, both rounded at 6e-8, with close pairs.
    assert float(single) == pytest.approx(energy(configuration, electrons), abs=3e-6 * number)


def test_batches_of_walkers_and_configurations():
    cases = [random_case(4, seed) for seed in range(3)]
    lists = [make_ewald(configuration) for configuration, _ in cases]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *lists)
    walkers = jnp.stack([jnp.asarray(electrons)[None] + jnp.zeros((2, 1, 1)) for _, electrons in cases])
    batch = jax.jit(jax.vmap(jax.vmap(ewald_energy, (None, 0))))(stacked, walkers)
    alone = [energy(configuration, electrons) for configuration, electrons in cases]
    np.testing.assert_allclose(batch, np.stack([alone, alone], 1), atol=ROUNDING)


def test_shapes_depend_on_the_number_of_atoms_only():
    for number in (2, 8, 18):
        images, waves = numbers_of_vectors(number)
        for shape in (np.eye(3), np.diag([0.25, 0.25, 16]), np.diag([0.3, 2, 2]) + 0.1):
            lists = make_ewald(make(shape * 5, np.random.default_rng(0).random((number, 3))))
            assert lists.images.shape == (images, 3)
            assert lists.waves.shape == (waves, 3)
            assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(lists))


def test_signatures_are_checked_in_the_tests():
    lists = make_ewald(Configuration(4.0 * np.eye(3), 2.0 * FCC[:2], np.zeros(3)))
    electrons = jnp.asarray(2.0 * FCC[2:])
    assert ewald_energy(lists, electrons).shape == ()
    for wrong in (electrons[:, :2], electrons[None], electrons.astype(int)):
        with pytest.raises(TypeCheckError):
            ewald_energy(lists, wrong)
