"""Estimators of one walker against closed forms, finite differences and the electron gas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.configuration import make_configuration
from fnqs.ewald import ewald_energy, make_ewald
from fnqs.observables.correlations import (
    density_waves,
    pair_counts,
    pairs_without_correlation,
    proton_pair_counts,
    voxel_counts,
)
from fnqs.observables.coulomb import coulomb_derivatives, electron_energies, proton_derivatives
from fnqs.observables.derivatives import (
    kinetic_tensor,
    largest_sphere,
    node_factor,
    wrapped_displacements,
    zero_variance_term,
)
from fnqs.observables.momentum import sampled_occupations
from fnqs.periodic.cell import reciprocal_vectors
from fnqs.sampling.metropolis import moved

coulomb, energy_of, mending = (
    jax.jit(function) for function in (coulomb_derivatives, ewald_energy, zero_variance_term)
)
CELL = np.array([[4.1, 0.2, -0.3], [0.5, 3.7, 0.4], [-0.2, 0.6, 4.4]])
STEP = 1e-4


def scattered(number, seed=0):
    """Protons and electrons (N, 3) anywhere in the triclinic cell."""
    generator = np.random.default_rng(seed)
    return generator.random((number, 3)) @ CELL, generator.random((number, 3)) @ CELL


def whole_energy(cell, protons, electrons):
    return float(energy_of(make_ewald(make_configuration(cell, protons)), jnp.asarray(electrons)))


@pytest.mark.parametrize("number", [4, 8])
def test_kinds_of_pairs_add_up(number):
    protons, electrons = scattered(number)
    lists = make_ewald(make_configuration(CELL, protons))
    found = coulomb(lists, jnp.asarray(electrons))
    total = found.electron_electron + found.electron_proton + proton_derivatives(lists)[0]
    # float64 rounding; backgrounds of some Ha cancel
    assert float(total) == pytest.approx(float(energy_of(lists, jnp.asarray(electrons))), abs=1e-10)
    # One-component plasmas: protons and electrons have the same energy where they are in the same places.
    same = coulomb(lists, jnp.asarray(protons) + 1e-3).electron_electron
    assert float(same) == pytest.approx(float(proton_derivatives(lists)[0]), abs=1e-10)


def test_madelung_energy_of_protons():
    """Two interpenetrating cubes: -0.895929 / r_s Ha per proton of the body-centred lattice in a background."""
    lists = make_ewald(make_configuration(3.0 * np.eye(3), 3.0 * np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])))
    radius = 3.0 * (3 / (8 * np.pi)) ** (1 / 3)
    energy, forces, strain = proton_derivatives(lists)
    assert float(energy) / 2 == pytest.approx(-0.895929 / radius, abs=1e-6)  # digits of the constant
    np.testing.assert_allclose(forces, 0, atol=1e-9)
    np.testing.assert_allclose(strain, -energy / 3 * np.eye(3), atol=1e-9)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 1), (0, 1), (1, 2)])
def test_strain_against_other_cells(first, second):
    """Everything prepared anew in strained cells, with a splitting and lists of their own."""
    protons, electrons = scattered(4)
    lists = make_ewald(make_configuration(CELL, protons))
    found = coulomb(lists, jnp.asarray(electrons)).strain + proton_derivatives(lists)[2]
    energies = []
    for sign in (1, -1):
        strain = np.eye(3)
        strain[first, second] += 0.5 * sign * STEP
        strain[second, first] += 0.5 * sign * STEP
        energies.append(whole_energy(CELL @ strain, protons @ strain, electrons @ strain))
    # truncation of the sums, 1e-12 Ha in this cell, over the step
    assert float(found[first, second]) == pytest.approx((energies[0] - energies[1]) / (2 * STEP), abs=1e-6)


def test_the_trace_of_the_strain_derivative_is_minus_the_energy():
    protons, electrons = scattered(4)
    found = coulomb(make_ewald(make_configuration(CELL, protons)), jnp.asarray(electrons))
    energy = float(found.electron_electron + found.electron_proton)
    assert float(jnp.trace(found.strain)) == pytest.approx(-energy, abs=1e-7)  # truncation; 1/r scales as 1/length


def test_derivatives_by_protons_against_other_protons():
    protons, electrons = scattered(4)
    lists = make_ewald(make_configuration(CELL, protons))
    found = coulomb(lists, jnp.asarray(electrons)).protons + proton_derivatives(lists)[1]
    for proton, axis in [(0, 0), (2, 1), (3, 2)]:
        shift = np.zeros_like(protons)
        shift[proton, axis] = STEP
        upper, lower = (whole_energy(CELL, protons + sign * shift, electrons) for sign in (1, -1))
        assert float(found[proton, axis]) == pytest.approx((upper - lower) / (2 * STEP), abs=1e-5)  # third derivative


def test_the_zero_variance_term_against_the_hamiltonian():
    """-(nabla^2 Q)/2 - (nabla Q)(nabla log psi) by automatic derivatives of Q itself."""
    protons, electrons = scattered(4, seed=3)
    lists = make_ewald(make_configuration(CELL, protons))
    gradient = jax.random.normal(jax.random.key(0), (4, 3), jnp.float64)

    def q(flat):
        positions = flat.reshape(4, 3)
        x = wrapped_displacements(lists, positions, jnp.asarray(protons))
        d = jnp.sqrt(jnp.sum(x**2, -1))
        f = jnp.maximum(1 - (d / largest_sphere(lists)) ** 2, 0) ** 3
        return jnp.sum(x * (f / d)[..., None], axis=0)

    flat = jnp.asarray(electrons).ravel()
    laplacian = jnp.einsum("paii->pa", jax.hessian(q)(flat))
    expected = -0.5 * laplacian - jnp.einsum("pai,i->pa", jax.jacobian(q)(flat), gradient.ravel())
    found = mending(lists, jnp.asarray(electrons), gradient)
    np.testing.assert_allclose(found, expected, atol=1e-9)  # rounding
    complex_ = mending(lists, jnp.asarray(electrons), jax.lax.complex(gradient, 2 * gradient))
    assert np.abs(np.imag(complex_)).max() > 0.1


def test_the_force_stays_finite_at_a_proton():
    """An electron at distance d, with the cusp of psi: the bare force grows as 1/d^2, the mended one does not."""
    protons, electrons = scattered(4)
    lists = make_ewald(make_configuration(CELL, protons))
    direction = np.array([0.6, 0.0, 0.8])
    bare, mended = [], []
    for distance in (1e-1, 1e-2, 1e-3):
        near = jnp.asarray(electrons).at[0].set(protons[1] + distance * direction)
        gradient = jnp.zeros((4, 3)).at[0].set(-direction)
        slope = coulomb(lists, near).protons
        bare.append(float(jnp.abs(slope[1]).max()))
        mended.append(float(jnp.abs(slope + mending(lists, near, gradient))[1].max()))
    assert bare[2] > 0.7 * 1e6
    assert mended[2] < 10  # -nabla Q nabla log psi vanishes for a purely radial slope; what is left is regular


def test_the_node_factor_leaves_no_bias_in_a_shell():
    """Its integral over the shell is that of 1, and it takes the 1/x^4 of squares of products away."""
    x = (np.arange(4000) + 0.5) / 4000
    factor = np.array(jax.vmap(lambda d: node_factor(jnp.zeros((1, 3)).at[0, 0].set(1 / d), jnp.asarray(1.0)))(x))
    assert np.mean(factor) == pytest.approx(1.0, abs=1e-6)
    assert factor[0] / x[0] ** 2 == pytest.approx(9.0, abs=1e-3)
    assert float(node_factor(jnp.full((1, 3), 0.1), jnp.asarray(1.0))) == 1.0


def test_histograms_of_a_crystal_are_its_shells():
    edge = 3.0
    grid = edge * np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    lists = make_ewald(make_configuration(2 * edge * np.eye(3), grid))
    edges = np.linspace(0, edge, 31)
    electrons = jnp.asarray(grid + np.array([0.55 * edge, 0, 0]))  # 0.45 edge from one proton, 0.55 from another
    counts = np.asarray(pair_counts(lists, electrons, jnp.asarray(edges)))
    assert counts[2].sum() == 16
    assert counts[2][13] == 8
    assert counts[2][16] == 8
    assert np.all(counts[:2] == 0)  # the next ones are at `edge`, outside
    assert proton_pair_counts(lists, np.linspace(0, edge * 1.01, 31))[-1] == 12  # 8 sites, 3 bonds, each to two images
    ideal = pairs_without_correlation(edges, 8, (2 * edge) ** 3).sum(axis=1)
    np.testing.assert_allclose(ideal, np.array([12, 16, 64, 28]) * np.pi / 6, rtol=1e-12)  # a sphere in its cube


def test_voxels_hold_every_point_once():
    _, electrons = scattered(8)
    inverse = jnp.asarray(np.linalg.inv(CELL))
    counts = voxel_counts(inverse, jnp.asarray(electrons) - CELL[0] * 3, (4, 5, 6)).reshape(4, 5, 6)
    assert float(counts.sum()) == 8
    place = np.floor(np.mod(electrons[0] @ np.linalg.inv(CELL), 1) * [4, 5, 6]).astype(int)
    assert counts[tuple(place)] >= 1


class ElectronGas:
    """N = 14 at r_s = 1 in a cube: seven plane waves of either spin, sampled; samples in the axes (time, walker)."""

    def __init__(self, walkers=256, measurements=48, sweeps=8):
        self.volume = 14 * 4 * np.pi / 3
        edge = self.volume ** (1 / 3)
        self.cell = edge * np.eye(3)
        self.waves = jnp.asarray(2 * np.pi / edge * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)]))
        protons = edge * np.stack(np.meshgrid(*[np.arange(3) / 3] * 3, indexing="ij"), -1).reshape(-1, 3)[:14]
        self.lists = make_ewald(make_configuration(self.cell, protons))
        self.kinetic = 12 * 0.5 * (2 * np.pi / edge) ** 2

        def filled(electrons):
            phases = electrons.reshape(2, 7, 3) @ self.waves.T
            return jax.lax.complex(jnp.cos(phases), jnp.sin(phases))

        def log_psi(electrons):
            signs, logs = jnp.linalg.slogdet(filled(electrons))
            return jnp.prod(signs), jnp.sum(logs)

        self.log_psi = log_psi

        def sweep(carry, key):
            positions, log = carry
            step, draw = jax.random.split(key)
            trial = moved(positions[None], jnp.full(1, 0.14), step)[0]
            trial_log = jax.vmap(log_psi)(trial)[1]
            accept = jnp.log(jax.random.uniform(draw, log.shape)) < 2 * (trial_log - log)
            return (jnp.where(accept[:, None, None], trial, positions), jnp.where(accept, trial_log, log)), None

        longer = jnp.asarray(reciprocal_vectors(self.cell)[0] * 2)[None]
        self.listed = jnp.concatenate([self.waves, longer])

        def observe(electrons, key):
            matrices = filled(electrons)
            inverse = jnp.linalg.inv(matrices)
            waves = jax.lax.complex(jnp.zeros_like(self.waves), self.waves)
            slopes = jnp.einsum("sak,ska,kx->sax", matrices, inverse, waves)
            zeros, protons = jnp.zeros((3, 3)), jnp.asarray(self.lists.protons)
            lists = jax.tree.map(jnp.asarray, self.lists)
            repulsion, strain = jax.value_and_grad(lambda e: electron_energies(lists, electrons, protons, e)[0])(zeros)
            return {
                "repulsion": repulsion,
                "strain": strain,
                "kinetic": kinetic_tensor(slopes.reshape(14, 3)),
                "waves": jnp.sum(density_waves(self.waves[1:], electrons) ** 2, axis=0),
                "occupations": sampled_occupations(log_psi, jnp.asarray(self.cell), self.listed, electrons, key),
            }

        @jax.jit
        def run(key):
            start, key = jax.random.split(key)
            positions = jax.random.uniform(start, (walkers, 14, 3), jnp.float64) * edge
            state = (positions, jax.vmap(log_psi)(positions)[1])
            state, _ = jax.lax.scan(sweep, state, jax.random.split(key, 200))

            def one(state, key):
                state, _ = jax.lax.scan(sweep, state, jax.random.split(key, sweeps))
                return state, jax.vmap(observe)(state[0], jax.random.split(jax.random.fold_in(key, 1), walkers))

            return jax.lax.scan(one, state, jax.random.split(jax.random.fold_in(key, 2), measurements))[1]

        self.samples = jax.tree.map(np.asarray, run(jax.random.key(4)))

    def mean(self, values):
        """Mean and standard error over the walkers' own means, which are independent."""
        chains = values.mean(axis=0)
        return chains.mean(axis=0), chains.std(axis=0, ddof=1) / np.sqrt(len(chains))


@pytest.fixture(scope="module")
def gas():
    return ElectronGas()


def test_pressure_of_the_electron_gas(gas):
    """Hartree-Fock, N = 14, r_s = 1, by the virial and by the stress: 0.137466 Ha/bohr^3."""
    repulsion, error = gas.mean(gas.samples["repulsion"])
    pressure, error = (2 * gas.kinetic + repulsion) / (3 * gas.volume), error / (3 * gas.volume)
    assert error < 3e-4
    assert pressure == pytest.approx(0.137466, abs=4 * error)
    stress = (gas.samples["strain"] - gas.samples["kinetic"]) / gas.volume
    tensor, errors = gas.mean(stress)
    assert np.all(np.abs(tensor + 0.137466 * np.eye(3)) < 4 * errors)
    np.testing.assert_allclose(np.trace(gas.samples["strain"], axis1=2, axis2=3), -gas.samples["repulsion"], atol=1e-6)


def test_structure_factor_of_the_electron_gas(gas):
    """S(k) = 1 - (pairs of filled waves of one spin that differ by k) / (N / 2): here 1 - 2/7."""
    found, errors = gas.mean(gas.samples["waves"] / 14)
    assert np.all(np.abs(found - (1 - 2 / 7)) < 4.5 * errors)
    assert errors.max() < 0.02


def test_momentum_distribution_of_the_electron_gas(gas):
    """Filled waves are filled, an empty one is empty."""
    found, errors = gas.mean(gas.samples["occupations"])
    assert np.all(np.abs(found - np.array([1.0] * 7 + [0.0])) < 4.5 * errors)
    assert errors.max() < 0.1
