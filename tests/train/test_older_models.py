"""Models and configs from before the last pair had one form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnqs.configuration import make_configuration
from fnqs.model_config import ModelConfig
from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_params
from fnqs_train.checkpointing.saving import Checkpoints
from fnqs_train.config import load_config, save_config
from fnqs_train.loading import load_params, params_template
from fnqs_train.models.older import NEW, OLD, OLD_STATES, from_older, older_template

CONFIG = """name = "old"
steps = 2
data.recipe = "absent.toml"
log.wandb = "disabled"
model = { features = 8, vectors = 4, amplitudes = 4, radial_functions = 4, proton_rounds = 1, determinants = 2 }
"""


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    """A run folder as an older version wrote it: no key of now in its config, the old head among its parameters."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.toml").write_text(CONFIG)
    config = load_config("old.toml", ["model.level_bumps=0"])
    (tmp_path / "run").mkdir()
    save_config(config, "run")
    text = (tmp_path / "run" / "config.toml").read_text().splitlines()
    kept = [line for line in text if not line.startswith(("level_bumps", "spin"))]
    assert len(kept) == len(text) - 2
    (tmp_path / "run" / "config.toml").write_text("\n".join(kept))
    generator = np.random.default_rng(0)
    shapes = older_template(params_template(config), 2)
    params = jax.tree.map(lambda leaf: jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype), shapes)
    with Checkpoints("run") as checkpoints:
        checkpoints.save(2, params, {"count": np.zeros(1)}, {"n002": np.zeros(1)}, {"data_fingerprint": "x"})
    return tmp_path / "run"


def test_an_old_run_is_loaded_with_its_own_sizes(old_run):
    config = load_config(old_run)
    assert config.model.level_bumps == 0
    assert config.model.spin == "singlet"
    checkpoint = resolve_checkpoint(old_run)
    found, saved = load_params(checkpoint, config), restore_params(checkpoint)
    head, old = found["encoder"][NEW], saved["encoder"][OLD]
    assert OLD not in found["encoder"]
    for term in range(2):
        np.testing.assert_array_equal(head["kernel"][:, 2 * term], old["kernel"][:, OLD_STATES * term])
        np.testing.assert_array_equal(head["bias"][2 * term], old["bias"][OLD_STATES * term])
    assert not np.any(head["kernel"][:, 1::2])
    configuration = make_configuration(5.0 * np.eye(3), [[0.0, 0, 0], [1.4, 0, 0]])
    wavefunction = WaveFunction(config.model)
    context = jax.jit(wavefunction.encode)(found, make_system(configuration, config.model))
    _, log = jax.jit(wavefunction.log_psi)(found, context, jnp.asarray(configuration.protons, jnp.float32) + 0.2)
    assert np.isfinite(log)


def test_a_config_of_now_has_the_sizes_of_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.toml").write_text(CONFIG)
    assert load_config("new.toml").model.level_bumps == ModelConfig().level_bumps > 0


def test_both_ways_have_the_shapes_of_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.toml").write_text(CONFIG)
    template = params_template(load_config("new.toml"))
    back = jax.eval_shape(lambda params: from_older(params, 2), older_template(template, 2))
    assert jax.tree.map(lambda leaf: leaf.shape, back) == jax.tree.map(lambda leaf: leaf.shape, template)
