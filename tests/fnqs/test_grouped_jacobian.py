"""The Jacobian by groups of parameters against the one whose rows are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.optimisation.grouped_jacobian import GroupedJacobian, leaf_groups
from fnqs.optimisation.jacobian import StoredJacobian
from fnqs.optimisation.log_derivatives import log_derivatives
from fnqs.optimisation.natural_gradient import centre_per_configuration, stack_parts
from fnqs.system import make_system, stack_systems
from fnqs.wavefunction import WaveFunction

CHUNK = 3


def test_groups_hold_every_leaf_once():
    params = {"a": jnp.zeros(7), "b": [jnp.zeros((3, 4)), jnp.zeros(1)], "c": jnp.zeros(20)}
    assert leaf_groups(params, 1) == [(0, 1, 2, 3)]
    for groups in (2, 3, 9):
        found = leaf_groups(params, groups)
        assert len(found) <= groups
        assert sum(found, ()) == (0, 1, 2, 3)


@pytest.mark.parametrize("twist", [(0.0, 0.0, 0.0), (0.25, 0.1, -0.3)], ids=["real", "complex"])
def test_same_numbers_as_with_all_rows_in_memory(small_model, make_bcc, twist):
    wavefunction = WaveFunction(small_model)
    systems = stack_systems([make_system(make_bcc(i, twist).configuration, small_model) for i in range(3)])
    params = jax.jit(wavefunction.init)(jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], systems))
    walkers = jax.random.normal(jax.random.key(1), (3, 6, 2, 3), jnp.float32)
    walkers = walkers.at[1, 2, 0, 0].set(jnp.nan)
    finite = jnp.ones(3, bool)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))

    @jax.jit
    def evaluate(params, systems, walkers, direction, weights):
        grouped = GroupedJacobian(wavefunction, params, systems, walkers, finite, chunk=CHUNK, groups=3)
        rows = log_derivatives(wavefunction, params, systems, walkers, CHUNK)
        rows = rows if rows.ndim == 4 else rows[:, :, None]
        sound = jnp.all(jnp.isfinite(rows), axis=(1, 2, 3))
        rows = jnp.where(sound[:, None, None, None], rows, 0.0)
        stored = StoredJacobian(stack_parts(centre_per_configuration(rows)))
        found = [(j.gram(), j.gram_and_times(direction)[1], j.transposed_times(weights)) for j in (grouped, stored)]
        return found, grouped.finite

    generator = np.random.default_rng(2)
    direction = generator.normal(size=parameters).astype(np.float32)
    weights = generator.normal(size=18 * (1 if twist[0] == 0 else 2)).astype(np.float32)
    (ours, wanted), sound = evaluate(params, systems, walkers, direction, weights)
    assert sound.tolist() == [True, False, True]
    for one, other in zip(ours, wanted, strict=True):
        largest = np.abs(other).max()
        assert largest > 0
        # Sums of float32 numbers in another order, and the network differentiated another way.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * largest)
