import dataclasses
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import fnqs_train.step
from fnqs.hamiltonian import local_energies, local_energy
from fnqs.optimisation.log_derivatives import log_derivatives
from fnqs.optimisation.subspace import ALL, Trained, subspace_of
from fnqs.system import make_system, stack_systems
from fnqs.wavefunction import WaveFunction
from fnqs_train import equilibration as equilibration_module
from fnqs_train.chunks import Chunks
from fnqs_train.config import OptimizerConfig
from fnqs_train.equilibration import make_equilibration
from fnqs_train.step import Learned, make_optimizer, make_step

CLIP = OptimizerConfig.clip_width
CHUNKS = Chunks(energy=4, gradient=8)
FRESH = np.ones(2, bool), np.zeros(2, bool)
"""Both configurations are new; turned round, both are stale."""


@pytest.fixture(scope="module")
def wavefunction(small_model):
    return WaveFunction(small_model)


def stacked(model, records, **options):
    return stack_systems([make_system(record.configuration, model, **options) for record in records])


@pytest.fixture(scope="module")
def systems(small_model, make_bcc):
    return stacked(small_model, [make_bcc(0), make_bcc(1)])


@pytest.fixture(scope="module")
def params(wavefunction, systems):
    return jax.jit(wavefunction.init)(jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], systems))


@pytest.fixture(scope="module")
def start(wavefunction, small_sampling, systems, params):
    """Equilibrated walkers (2, n, 2, 3) and widths (2,)."""
    number = small_sampling.walkers_per_configuration
    walkers, widths = jnp.zeros((2, number, 2, 3), jnp.float32), jnp.full(2, 0.25, jnp.float32)
    equilibrate = make_equilibration(wavefunction, small_sampling)
    walkers, widths, acceptance, _ = equilibrate(params, systems, walkers, widths, *FRESH, jax.random.key(1))
    assert np.all((acceptance > 0.2) & (acceptance < 0.9))
    return walkers, widths


@pytest.mark.parametrize(("limited", "reached"), [(False, True), (True, False)])
def test_equilibration_says_whether_the_walkers_have_forgotten(
    wavefunction, small_sampling, systems, params, monkeypatch, limited, reached
):
    """Two electrons forget within the sweeps that they are given, unless they had to have forgotten long before."""
    if limited:
        monkeypatch.setattr(equilibration_module, "PATIENT", 10_000)
    number = 16  # another shape than elsewhere, so that the program is made anew
    sampling = dataclasses.replace(small_sampling, walkers_per_configuration=number, equilibration_sweeps=5)
    walkers, widths = jnp.zeros((2, number, 2, 3), jnp.float32), jnp.full(2, 0.25, jnp.float32)
    equilibrate = make_equilibration.__wrapped__(wavefunction, sampling)
    *_, settled = equilibrate(params, systems, walkers, widths, *FRESH, jax.random.key(1))
    assert settled.tolist() == [reached, reached]


@pytest.fixture
def take_step(wavefunction, small_sampling, params):
    """A function (systems, walkers, widths, method, learned, key, trained) that takes one step."""

    def take(systems, walkers, widths, settings=None, learned=None, key=2, trained=ALL):
        optimizer = make_optimizer(settings or OptimizerConfig())
        step = make_step(wavefunction, optimizer, small_sampling, CLIP, CHUNKS, trained=trained)
        if learned is None:
            own = jax.tree.map(jnp.array, params)  # a step takes the arrays of its first argument away
            learned = Learned(own, optimizer.init(own))
        return step(learned, systems, walkers, widths, jax.random.key(key))

    return take


def flat(params):
    return np.asarray(ravel_pytree(params)[0])


def test_a_mixed_batch_equals_its_members_alone(wavefunction, systems, params, start):
    @jax.jit
    def evaluate(params, systems, walkers):
        contexts = jax.vmap(partial(wavefunction.encode, params))(systems)
        energies = local_energies(wavefunction, params, contexts, systems, walkers, CHUNKS.energy)
        return energies, log_derivatives(wavefunction, params, systems, walkers, CHUNKS.gradient)

    energies, rows = evaluate(params, systems, start[0])
    assert np.abs(energies[0] - energies[1]).max() > 0.01  # the two differ, so a mix-up would show
    for k in range(2):
        # Twice the same configuration instead of a batch of one: the same compiled program serves.
        alone = jax.tree.map(lambda leaf, k=k: leaf[[k, k]], systems)
        energies_alone, rows_alone = evaluate(params, alone, start[0][jnp.array([k, k])])
        # float32 sums in another order: 1e-6 each, some hundred of them, in units of the largest entry.
        np.testing.assert_allclose(energies_alone[0], energies[k], atol=1e-4 * np.abs(energies[k]).max())
        np.testing.assert_allclose(rows_alone[0], rows[k], atol=1e-4 * np.abs(rows[k]).max())


def test_nan_in_one_configuration_leaves_the_others_alone(systems, params, start, take_step):
    walkers, widths = start
    results = []
    for places in ([3], [0, 7, 20]):
        broken = walkers.at[0, jnp.array(places), 1, 2].set(jnp.nan)
        learned, moved, _, report = take_step(systems, broken, widths)
        assert report.finite.tolist() == [False, True]
        assert report.taken
        assert np.isfinite(report.energy[1])
        assert np.all(np.isfinite(moved[1]))
        results.append(flat(learned.params))
    assert np.all(np.isfinite(results[0]))
    assert np.abs(results[0] - flat(params)).max() > 0
    # The broken configuration contributes nothing at all, whichever of its walkers are broken.
    np.testing.assert_array_equal(results[0], results[1])


def test_a_step_without_any_finite_configuration_changes_nothing(systems, params, start, take_step):
    walkers, widths = start
    learned, _, _, report = take_step(systems, walkers.at[:, 0].set(jnp.nan), widths)
    assert not report.finite.any()
    assert not report.taken
    np.testing.assert_array_equal(flat(learned.params), flat(params))
    assert int(learned.optimizer.count) == 0


def test_all_walkers_finite_means_taken(systems, start, take_step):
    walkers, widest = start
    narrow = 0.2 * widest
    _, _, widths, report = take_step(systems, walkers, narrow)
    assert report.finite.all()
    assert report.taken
    assert not report.fallback
    assert 0 < float(report.update_norm) <= OptimizerConfig.learning_rate * OptimizerConfig.max_norm * 1.0001
    assert np.all(np.asarray(report.variance) > 0)
    assert np.all(np.asarray(widths) > np.asarray(narrow))  # adapted: nearly all moves are accepted


@pytest.mark.parametrize(
    "settings",
    [OptimizerConfig(), OptimizerConfig(momentum=0.0)],
    ids=["spring", "minsr"],
)
def test_every_method_lowers_the_energy(wavefunction, small_sampling, systems, params, start, take_step, settings):
    walkers, widths = start
    # Fresh parameters are close to the best already, so they are spoilt first.
    leaves, structure = jax.tree.flatten(params)
    noise = np.random.default_rng(0)
    spoilt = [leaf + 0.15 * noise.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    own = jax.tree.unflatten(structure, spoilt)
    equilibrate = make_equilibration(wavefunction, small_sampling)
    for turn in range(10):  # 200 sweeps: the walkers forget the wave function that was not spoilt
        walkers, widths, *_ = equilibrate(own, systems, walkers, widths, *FRESH[::-1], jax.random.key(turn))
    first = Learned(own, make_optimizer(settings).init(own))
    before, after = [], []
    for step in range(10):  # steps that are thrown away: the energy of the spoilt parameters
        copy = jax.tree.map(jnp.array, first)
        _, walkers, widths, report = take_step(systems, walkers, widths, settings, copy, key=step)
        before.append(float(np.mean(report.energy)))
    learned = first
    for step in range(10, 70):
        learned, walkers, widths, report = take_step(systems, walkers, widths, settings, learned, key=step)
        assert report.taken
        after.append(float(np.mean(report.energy)))
    last = after[-15:]
    error = np.hypot(np.std(before, ddof=1) / 10**0.5, np.std(last, ddof=1) / 15**0.5)
    assert np.mean(before) - np.mean(last) > 4 * error  # four standard errors: not by chance


def test_the_last_steps_cool_down():
    """A learning rate that falls to zero in the last steps, and is what it would be without them before."""
    warm, cooled = (
        make_optimizer(OptimizerConfig(momentum=0.0, cooldown_steps=steps, decay_steps=1e9), steps=20)
        for steps in (0, 10)
    )
    params = {"a": jnp.ones(3)}
    rows, residual = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32), jnp.arange(4.0)
    lengths = []
    for optimizer in (warm, cooled):
        state = optimizer.init(params)
        lengths.append([])
        for _ in range(22):
            updates, state = optimizer.update(params, state, params, jacobian=rows, residual=residual)
            lengths[-1].append(float(jnp.linalg.norm(cast(dict, updates)["a"])))
    factors = np.concatenate([np.ones(10), np.arange(10, 0, -1) / 10, np.zeros(2)])
    np.testing.assert_allclose(lengths[1], np.array(lengths[0]) * factors, rtol=1e-5, atol=1e-12)


def test_a_complex_psi_at_gamma_takes_the_step_of_the_real_one(small_model, small_sampling, make_bcc, start):
    """A complex psi fills whole levels, as the real one does where it is a Slater determinant."""
    slater = dataclasses.replace(small_model, antisymmetric="slater")
    records = [make_bcc(0), make_bcc(1)]
    both = [stacked(slater, records), stacked(slater, records, force_complex=True)]
    own = WaveFunction(slater)
    params = jax.jit(own.init)(jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], both[0]))
    optimizer = make_optimizer(OptimizerConfig())
    step = make_step(own, optimizer, small_sampling, CLIP, CHUNKS)
    real, complex_ = [
        step(Learned(params, optimizer.init(params)), systems, *start, jax.random.key(2)) for systems in both
    ]
    # float32 rounding, which the solve amplifies by at most 1/damping = 1e3.
    np.testing.assert_allclose(complex_[3].energy, real[3].energy, atol=1e-3)
    largest = np.abs(flat(real[0].params) - flat(params)).max()
    assert largest > 0
    np.testing.assert_allclose(flat(complex_[0].params), flat(real[0].params), rtol=0, atol=2e-2 * largest)


def test_twisted_configurations_take_a_step(small_model, wavefunction, make_bcc, params, start, take_step):
    records = [make_bcc(0, twist=(0.25, 0.1, -0.3)), make_bcc(1, twist=(0.5, 0, 0.2))]
    twisted = stacked(small_model, records)
    learned, walkers, _, report = take_step(twisted, *start)
    assert report.taken
    assert report.finite.all()
    assert np.abs(flat(learned.params) - flat(params)).max() > 0
    encode, energy = jax.jit(wavefunction.encode), jax.jit(partial(local_energy, wavefunction))
    for k, record in enumerate(records):
        # The energy is that of the walkers after their moves, one configuration and one walker after another.
        system = make_system(record.configuration, small_model)
        context = encode(params, system)
        alone = np.mean([complex(energy(params, context, system, electrons)) for electrons in walkers[k]])
        assert abs(alone.imag) > 0  # psi is complex
        np.testing.assert_allclose(report.energy[k], alone.real / 2, rtol=1e-4)  # float32 sums in another order


@pytest.mark.parametrize("trained", [Trained("heads"), Trained("low-rank", 2)], ids=lambda trained: trained.part)
def test_steps_of_a_part_leave_the_rest_bit_for_bit(systems, params, start, take_step, trained):
    walkers, widths = start
    subspace = subspace_of(params, trained)
    learned = None
    for key in range(3):
        learned, walkers, widths, report = take_step(systems, walkers, widths, None, learned, key, trained)
        assert report.taken
    change = flat(learned.params) - flat(params)
    assert 0 < np.linalg.norm(change) <= 3 * OptimizerConfig.learning_rate * OptimizerConfig.max_norm * 1.0001
    # Float32 rounding of parameters of size one, which is all that may lead out of the directions.
    np.testing.assert_allclose(subspace.expand(subspace.restrict(jnp.asarray(change))), change, rtol=0, atol=1e-6)
    leaves = zip(jax.tree.leaves(learned.params), jax.tree.leaves(params), strict=True)
    moved = {place for place, (new, old) in enumerate(leaves) if not np.array_equal(new, old)}
    assert moved <= set(subspace.leaves)
    assert len(moved) > 10  # some have no part in a psi of one determinant


def test_all_directions_give_the_step_of_all_parameters(systems, params, start, take_step, monkeypatch):
    """Orthonormal bases of all inputs of every kernel are all parameters, in other coordinates."""
    rng = np.random.default_rng(0)

    def turned(params, trained):
        found = subspace_of(params, trained)
        assert found is not None
        bases = [
            np.linalg.qr(rng.normal(size=(shape[0], shape[0])))[0] if len(shape) == 2 else None
            for shape in found.shapes
        ]
        assert sum(basis is not None for basis in bases) > 10
        return dataclasses.replace(found, bases=tuple(bases))

    made = []

    def once(params, trained):
        made[:] = made or [turned(params, trained)]  # the same bases wherever a step asks for them
        return made[0]

    plain, _, _, _ = take_step(systems, *start)
    monkeypatch.setattr(fnqs_train.step, "subspace_of", lambda params, trained: once(params, trained))
    other, _, _, _ = take_step(systems, *start, trained=Trained("low-rank", rank=1000))
    largest = np.abs(flat(plain.params) - flat(params)).max()
    assert largest > 0
    # float32 rounding, which the solve amplifies by at most 1/damping = 1e3.
    np.testing.assert_allclose(flat(other.params), flat(plain.params), rtol=0, atol=2e-2 * largest)
