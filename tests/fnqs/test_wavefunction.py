"""The exact properties of the wave function, one test each, on small cells in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.spatial.transform import Rotation

from fnqs.ansatz.orbital_basis import REDUNDANT_ENERGY, grid_counts
from fnqs.ansatz.pair_numbers import SHARPNESS_RANGE, START_SHARPNESS, sharpness_of
from fnqs.configuration import fold_twist, make_configuration
from fnqs.periodic.smooth_distance import reduced_cell
from fnqs.system import make_system, stack_systems

GAMMA = (0.0, 0.0, 0.0)
GENERAL = (0.13, -0.21, 0.4)
ROUNDING = 1e-9
"""Of log|psi| and the phase in float64: the overlap's floor and close levels magnify 1e-15 by some 1e5."""

real_and_complex = pytest.mark.parametrize("twist", [GAMMA, GENERAL])
all_parts = pytest.mark.parametrize(
    ("name", "twist"),
    [
        ("model", GAMMA),
        ("model", GENERAL),
        ("moments", GAMMA),
        ("moments", GENERAL),
        ("slater", GAMMA),
        ("plane_waves", GAMMA),
    ],
    ids=["pairing", "pairing-twisted", "moments", "moments-twisted", "slater", "plane-waves"],
)
"""Every antisymmetric part; a Slater determinant at a twist is that of the pairing."""


def assert_equal(found, expected, factor=1.0, *, tolerance=ROUNDING):
    """Phases equal up to `factor`, logarithms equal."""
    assert found[1] == pytest.approx(expected[1], abs=tolerance)
    assert found[0] == pytest.approx(factor * expected[0], abs=tolerance)


def moved(electrons, index, displacement):
    return jnp.asarray(electrons).at[index].add(jnp.asarray(displacement, jnp.float64))


def protons_replaced(model, case, protons, *, cell=None, electrons=None):
    """The same twist in another cell with other protons."""
    cell = case.configuration.cell if cell is None else cell
    electrons = case.electrons if electrons is None else electrons
    return model.prepare(make_configuration(cell, protons, case.configuration.twist), electrons)


@all_parts
def test_antisymmetric_in_electrons_of_one_spin(any_model, twist):
    case = any_model.case(4, twist)
    reference = any_model.log_psi(case)
    for first, second in ((0, 1), (2, 3)):
        order = np.arange(4)
        order[[first, second]] = second, first
        assert_equal(any_model.log_psi(case, case.electrons[order]), reference, -1)


@real_and_complex
def test_singlet(model, twist):
    """All spins turned over: the pair functions are symmetric, so nothing changes."""
    case = model.case(4, twist)
    assert_equal(model.log_psi(case, case.electrons[np.array([2, 3, 0, 1])]), model.log_psi(case))


@real_and_complex
def test_not_symmetric_in_electrons_of_different_spin(model, twist):
    case = model.case(4, twist)
    exchanged = model.log_psi(case, case.electrons[np.array([2, 1, 0, 3])])
    assert abs(exchanged[1] - model.log_psi(case)[1]) > 1e-3


@settings(max_examples=6, deadline=None)
@given(order=st.permutations(range(4)), twist=st.sampled_from([GAMMA, GENERAL]))
def test_relabelled_protons(model, order, twist):
    case = model.case(4, twist)
    other = protons_replaced(model, case, case.configuration.protons[order])
    assert_equal((1, model.log_psi(other)[1]), (1, model.log_psi(case)[1]))


@all_parts
def test_everything_moved_by_a_vector_of_the_grid(any_model, twist):
    """Orbital integrals are done on a grid; moved by its vectors, everything is equal to rounding."""
    model, case = any_model, any_model.case(4, twist)
    cell = reduced_cell(case.configuration.cell)
    shift = np.array([1, 2, 3]) / grid_counts(cell) @ cell
    other = protons_replaced(
        model, case, case.configuration.protons + shift, electrons=np.asarray(case.electrons) + shift
    )
    assert other.electrons[0, 0] != case.electrons[0, 0]
    assert model.log_psi(other)[1] == pytest.approx(model.log_psi(case)[1], abs=ROUNDING)


@all_parts
def test_other_vectors_of_the_same_lattice(any_model, twist):
    """A sheared cell is the same crystal: psi and the local energy stay, the twist turns with the vectors."""
    model, case = any_model, any_model.case(4, twist)
    vectors = np.array([[1, 2, -1], [0, 1, 1], [0, 0, 1]])
    original = case.configuration
    configuration = make_configuration(vectors @ original.cell, original.protons, vectors @ original.twist)
    other = model.prepare(configuration, case.electrons)
    assert model.log_psi(other)[1] == pytest.approx(model.log_psi(case)[1], abs=ROUNDING)
    assert model.local_energy(other) == pytest.approx(model.local_energy(case), rel=ROUNDING)


@settings(max_examples=5, deadline=None)
@given(shift=st.tuples(*[st.floats(-2, 2)] * 3), twist=st.sampled_from([GAMMA, GENERAL]))
def test_everything_moved_by_any_vector(model, shift, twist):
    case = model.case(4, twist)
    other = protons_replaced(
        model,
        case,
        case.configuration.protons + np.array(shift),
        electrons=np.asarray(case.electrons) + shift,
    )
    # What the grid of the orbital integrals may leave: a thousandth of the fluctuations of log|psi|, which are
    # of order one.
    assert model.log_psi(other)[1] == pytest.approx(model.log_psi(case)[1], abs=1e-3)


@settings(max_examples=8, deadline=None)
@given(
    electron=st.integers(0, 3),
    lattice=st.tuples(*[st.integers(-2, 2)] * 3),
    twist=st.sampled_from([GAMMA, GENERAL, (0.5, 0.0, 0.0), (0.25, 0.25, 0.25)]),
)
def test_twist_phase_of_one_electron(model, electron, lattice, twist):
    """Spin up (0, 1) and spin down (2, 3) alike pick up exp(2 pi i theta . n)."""
    case = model.case(4, twist)
    shifted = moved(case.electrons, electron, np.array(lattice) @ case.configuration.cell)
    factor = np.exp(2j * np.pi * np.dot(twist, lattice))
    assert_equal(model.log_psi(case, shifted), model.log_psi(case), factor)


def test_half_twist_changes_sign(model):
    case = model.case(2, (0.0, 0.5, 0.0))
    for electron in (0, 1):
        assert_equal(
            model.log_psi(case, moved(case.electrons, electron, case.configuration.cell[1])),
            model.log_psi(case),
            -1,
        )


@real_and_complex
def test_protons_moved_by_lattice_vectors(model, twist):
    case = model.case(4, twist)
    protons = case.configuration.protons.copy()
    protons[1] += case.configuration.cell[0] - 2 * case.configuration.cell[2]
    assert model.log_psi(protons_replaced(model, case, protons))[1] == pytest.approx(
        model.log_psi(case)[1], abs=ROUNDING
    )


@all_parts
@pytest.mark.parametrize("partner", ["proton", "same spin", "opposite spin"])
def test_local_energy_stays_finite_at_coalescence(any_model, twist, partner):
    model, case = any_model, any_model.case(4, twist)
    centre = {
        "proton": jnp.asarray(case.configuration.protons[1]),
        "same spin": case.electrons[1],
        "opposite spin": case.electrons[2],
    }[partner]
    direction = np.array([0.48, -0.6, 0.64])
    energies = [
        model.local_energy(case, case.electrons.at[0].set(centre + distance * direction)) for distance in (1e-3, 1e-4)
    ]
    # The limit is approached linearly, with a slope of up to 1000 Ha per bohr for noisy parameters: 1 Ha. A cusp
    # wrong by 1 % would add 0.01 / 1e-4 = 100 Ha, and rounding at a node is 1e-16 / (1e-4)^2 = 1e-8 Ha.
    assert abs(energies[1] - energies[0]) < 5
    assert np.isfinite(model.log_psi(case, case.electrons.at[0].set(centre))[1]) or partner == "same spin"


@pytest.mark.parametrize("name", ["model", "plane_waves"])
def test_one_set_of_weights_for_all_systems(any_model, name):
    """Any N, cell, density and twist; the shapes of freshly drawn parameters do not depend on any of them."""
    model, other = any_model, GENERAL if name == "model" else GAMMA
    shapes = jax.tree.map(jnp.shape, model.params)
    for number, twist, radius in ((2, GAMMA, 1.0), (4, other, 1.3), (6, GAMMA, 2.0)):
        case = model.case(number, twist, seed=3, radius=radius)
        drawn = jax.eval_shape(model.wavefunction.init, jax.random.key(0), case.system)
        assert jax.tree.map(lambda leaf: leaf.shape, drawn) == shapes
        phase, log = model.log_psi(case)
        assert np.isfinite(log)
        assert abs(phase) == pytest.approx(1, abs=1e-12)  # rounding


@real_and_complex
def test_supercell_at_the_folded_twist(model, twist):
    """Doubling the cell doubles the twist's fraction along it; each electron keeps its phase."""
    small = model.case(2, twist)
    cell, protons = small.configuration.cell, small.configuration.protons
    double = cell * np.array([[2], [1], [1]])
    folded = fold_twist(np.array(twist) * np.array([2, 1, 1]))
    electrons = np.asarray(small.electrons)
    ordered = np.concatenate([electrons[:1], electrons[:1] + cell[0], electrons[1:], electrons[1:] + cell[0]])
    ordered = ordered + np.random.default_rng(0).uniform(-0.2, 0.2, ordered.shape)
    large = model.prepare(make_configuration(double, np.concatenate([protons, protons + cell[0]]), folded), ordered)
    reference = model.log_psi(large)
    for electron in range(4):
        assert_equal(
            model.log_psi(large, moved(large.electrons, electron, double[0])),
            reference,
            np.exp(2j * np.pi * 2 * twist[0]),
        )
    # Both halves moved by the small lattice vector, a symmetry of the protons.
    other = protons_replaced(
        model, large, np.concatenate([protons + cell[0], protons + 2 * cell[0]]), electrons=large.electrons
    )
    assert model.log_psi(other)[1] == pytest.approx(reference[1], abs=ROUNDING)
    assert np.isfinite(model.local_energy(large))


@settings(max_examples=4, deadline=None)
@given(
    rotation=st.tuples(*[st.floats(-3, 3)] * 3),
    reflect=st.booleans(),
    twist=st.sampled_from([GAMMA, GENERAL]),
)
def test_everything_rotated(model, rotation, reflect, twist):
    """Cell, protons and electrons turned (and inverted) together; the twist's fractions stay."""
    matrix = Rotation.from_rotvec(rotation).as_matrix() * (-1 if reflect else 1)
    case = model.case(4, twist)
    turned = protons_replaced(
        model,
        case,
        case.configuration.protons @ matrix.T,
        cell=case.configuration.cell @ matrix.T,
        electrons=np.asarray(case.electrons) @ matrix.T,
    )
    assert model.log_psi(turned)[1] == pytest.approx(model.log_psi(case)[1], abs=ROUNDING)


@pytest.mark.parametrize("name", ["model", "two_terms"])
def test_opposite_twist_is_the_conjugate(request, name):
    model = request.getfixturevalue(name)
    forth = model.case(4, GENERAL)
    back = model.case(4, tuple(-x for x in GENERAL))
    walkers = forth.electrons + 0.3 * jax.random.normal(jax.random.key(0), (5, 4, 3), jnp.float64)
    phase, log = model.log_psi_of_walkers(forth, walkers)
    other_phase, other_log = model.log_psi_of_walkers(back, walkers)
    np.testing.assert_allclose(other_log - log, other_log[0] - log[0], atol=ROUNDING)
    np.testing.assert_allclose(other_phase * phase, other_phase[0] * phase[0], atol=ROUNDING)
    if name == "model":
        # So energies are equal too, walker by walker; local energies of some ten Ha, with rounding of the same size.
        assert model.local_energy(back) == pytest.approx(np.conj(model.local_energy(forth)), rel=ROUNDING)


@pytest.mark.parametrize("name", ["model", "two_terms"])
def test_no_trace_of_the_phases_of_eigenvectors(request, name, monkeypatch, compiled):
    """Eigenvectors carry arbitrary phases, which differ between libraries and machines; |psi| may not."""
    model = request.getfixturevalue(name)
    case = model.case(4, GENERAL)
    eigh = jnp.linalg.eigh

    def turned(matrix):
        energies, vectors = eigh(matrix)
        angles = jnp.arange(len(energies), dtype=energies.dtype) ** 2 + 1e3 * jnp.real(matrix[0, 0])
        return energies, vectors * jax.lax.complex(jnp.cos(angles), jnp.sin(angles))

    monkeypatch.setattr(jnp.linalg, "eigh", turned)
    context = compiled(lambda params, system: model.wavefunction.encode(params, system))(model.params, case.system)
    monkeypatch.undo()
    walkers = case.electrons + 0.3 * jax.random.normal(jax.random.key(0), (5, 4, 3), jnp.float64)
    _, log = model.log_psi_of_walkers(case, walkers)
    _, turned_log = model.log_psi_of_walkers(dataclasses.replace(case, context=context), walkers)
    np.testing.assert_allclose(turned_log - log, turned_log[0] - log[0], atol=ROUNDING)


def test_one_walker_at_a_time(model):
    """An axis too many is not taken for something else by broadcasting."""
    case = model.case(4)
    for wrong in (case.electrons[None], case.electrons[:, :2]):
        for function in (model.wavefunction.log_psi, model.wavefunction.log_psi_jet):
            with pytest.raises(TypeCheckError):
                function(model.params, case.context, wrong)


def test_stacked_systems_encode_as_alone(model):
    cases = [model.case(4, GENERAL, seed=seed) for seed in (0, 1)]
    together = jax.vmap(model.encode, (None, 0))(model.params, stack_systems([case.system for case in cases]))
    for index, case in enumerate(cases):
        context = jax.tree.map(lambda leaf, i=index: leaf[i], together)
        _, log = model.log_psi_of(model.params, context, case.electrons)
        assert float(log) == pytest.approx(model.log_psi(case)[1], abs=ROUNDING)


def test_complex_on_request(model):
    case = model.case(4)
    forced = make_system(case.configuration, model.config, force_complex=True)
    assert np.iscomplexobj(forced.basis.hamiltonian)
    other = model.prepare(case.configuration, case.electrons, force_complex=True)
    assert other.context.pairing.closed.dtype == jnp.complex128
    reference = model.log_psi(other)
    shifted = moved(other.electrons, 2, case.configuration.cell[0])
    assert_equal(model.log_psi(other, shifted), reference)


@pytest.mark.parametrize("name", ["two_terms", "plane_waves"])
def test_every_parameter_acts(any_model, compiled):
    """No weight is without effect on log psi, with closed shells or with an open one (a ring of four)."""
    ring = 1.8 * np.arange(4)[:, None] * np.array([1.0, 0, 0])
    cases = any_model.case(4), any_model.prepare(make_configuration(7.2 * np.eye(3), ring), ring + 0.3)

    def log_psi(params):
        contexts = [any_model.wavefunction.encode(params, case.system) for case in cases]
        logs = [
            any_model.wavefunction.log_psi(params, *x)[1]
            for x in zip(contexts, [c.electrons for c in cases], strict=True)
        ]
        return sum(logs)

    gradient = compiled(jax.grad(log_psi))(any_model.params)
    idle = [jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(gradient) if not leaf.any()]
    assert [path for path in idle if any_model.config.determinants > 1 or "log_weights" not in path] == []


def test_redundant_orbitals_are_left_empty(model):
    """Combinations of orbitals that nearly vanish lie far above the Fermi level."""
    levels = np.linalg.eigvalsh(model.case(4, radius=1.0).system.basis.hamiltonian)
    assert levels[-1] > 0.5 * REDUNDANT_ENERGY
    assert levels[1] < 0.1 * REDUNDANT_ENERGY


def test_sharpness_stays_in_its_range():
    """Start at 8, slope as an exponential, never beyond a factor of 8 however far the network goes."""
    assert float(sharpness_of(jnp.zeros(()))) == START_SHARPNESS
    np.testing.assert_allclose(jax.grad(sharpness_of)(jnp.zeros(())), START_SHARPNESS)
    ends = sharpness_of(jnp.asarray([-50.0, 50.0], jnp.float64))
    np.testing.assert_allclose(ends, [START_SHARPNESS / SHARPNESS_RANGE, START_SHARPNESS * SHARPNESS_RANGE])
