import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from fnqs.optimisation.jacobian import StoredJacobian
from fnqs.optimisation.subspace import SubspaceJacobian, Trained, subspace_of

LEAVES = {
    "amplitude": {
        "backflow": {"kernel": (6, 3), "bias": (3,)},
        "jastrow": {"kernel": (5, 1)},
        "pairs": {"log_rates": (3,)},
    },
    "encoder": {
        "filter_head": {"kernel": (6, 4), "bias": (4,)},
        "filters": (2, 4),
        "onsite_head": {"kernel": (6, 2), "bias": (2,)},
        "protons": {"Linear_0": {"kernel": (2, 4)}},
    },
}
HEADS = {("amplitude", "jastrow"), ("amplitude", "pairs"), ("encoder", "onsite_head")}
PARTS = [Trained("heads"), Trained("low-rank", 3)]


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda shape: jnp.asarray(rng.normal(size=shape)), LEAVES, is_leaf=lambda x: type(x) is tuple)


def directions(subspace):
    """B (P, Q), column by column."""
    return np.array([subspace.expand(unit) for unit in jnp.eye(subspace.size)]).T


@pytest.mark.parametrize("trained", PARTS, ids=lambda trained: trained.part)
def test_the_directions_are_orthonormal_and_restricting_transposes(params, trained):
    flat, _ = ravel_pytree(params)
    subspace = subspace_of(params, trained)
    matrix = directions(subspace)
    assert matrix.shape == (flat.size, subspace.size)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(subspace.size), atol=1e-12)  # rounding of float64
    np.testing.assert_allclose(subspace.restrict(flat), matrix.T @ np.asarray(flat), atol=1e-12)


@pytest.mark.parametrize("trained", PARTS, ids=lambda trained: trained.part)
def test_the_jacobian_is_that_of_the_directions(params, trained):
    flat, _ = ravel_pytree(params)
    subspace = subspace_of(params, trained)
    matrix = directions(subspace)
    rng = np.random.default_rng(1)
    rows, x = rng.normal(size=(7, flat.size)), rng.normal(size=7)
    moving = np.concatenate(
        [
            np.arange(start, start + np.prod(shape))
            for start, shape in zip(subspace.starts, subspace.shapes, strict=True)
        ]
    )
    jacobian = SubspaceJacobian(StoredJacobian(subspace.reduce(jnp.asarray(rows[:, moving]))), subspace)
    projected = rows @ matrix @ matrix.T
    gram, product = jacobian.gram_and_times(flat)
    np.testing.assert_allclose(gram, projected @ projected.T, atol=1e-11)
    np.testing.assert_allclose(product, projected @ np.asarray(flat), atol=1e-11)
    np.testing.assert_allclose(jacobian.transposed_times(jnp.asarray(x)), x @ projected, atol=1e-11)


def test_heads_are_pairing_and_jastrow(params):
    subspace = subspace_of(params, Trained("heads"))
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    assert {(paths[place][0].key, paths[place][1].key) for place in subspace.leaves} == HEADS


def test_low_rank_changes_have_the_rank(params):
    flat, unravel = ravel_pytree(params)
    subspace = subspace_of(params, Trained("low-rank", 3))
    change = unravel(subspace.expand(jnp.asarray(np.random.default_rng(2).normal(size=subspace.size))))
    assert np.linalg.matrix_rank(change["encoder"]["filter_head"]["kernel"]) == 3
    assert np.all(change["encoder"]["filter_head"]["bias"] != 0)
    assert np.all(change["encoder"]["protons"]["Linear_0"]["kernel"] != 0)  # fewer inputs than directions: free
    assert subspace.size < flat.size


def test_all_is_no_subspace(params):
    assert subspace_of(params, Trained()) is None
