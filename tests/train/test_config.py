import dataclasses
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnqs.cli.settings import attribute_meanings, to_toml
from fnqs.errors import InputError
from fnqs_train.config import RunConfig, changed_keys, describe_config, load_config, recipe_path, save_config
from fnqs_train.finetune import finetune_config

MINIMAL = 'name = "try"\nsteps = 5\n\n[data]\nrecipe = "set.toml"\n'


@pytest.fixture
def config_file(tmp_path):
    (tmp_path / "set.toml").write_text('name = "set"\n')
    path = tmp_path / "try.toml"
    path.write_text(MINIMAL)
    return path


def test_defaults_and_the_recipe_beside_the_config(config_file):
    config = load_config(config_file)
    assert (config.name, config.steps, config.seed) == ("try", 5, 0)
    assert config.optimizer.train == "all"
    assert recipe_path(config) == config_file.parent / "set.toml"


def test_overrides_are_toml_and_come_in_order(config_file):
    overrides = [
        "steps=7",
        "optimizer.damping=1e-2",
        "optimizer.train=heads",
        'log.wandb="disabled"',
        "model.s_exponents=[1, 0.5]",
        "steps = 8",
    ]
    config = load_config(config_file, overrides)
    assert config.steps == 8
    assert config.optimizer.damping == 0.01
    assert config.optimizer.train == "heads"
    assert config.log.wandb == "disabled"
    assert config.model.s_exponents == (1.0, 0.5)
    assert changed_keys(load_config(config_file), config) == [
        "steps: 5 -> 8",
        "model.s_exponents: [1.2, 0.4, 0.13] -> [1.0, 0.5]",
        "optimizer.damping: 0.001 -> 0.01",
        "optimizer.train: all -> heads",
        "log.wandb: offline -> disabled",
    ]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        (
            "sampling.walkers=3",
            r"unknown key sampling\.walkers; did you mean .* or sampling\.walkers_per_configuration\?",
        ),
        (
            "optimiser.damping=1",
            r"unknown key optimiser; did you mean optimizer\? The keys here are name, steps",
        ),
        ("damping=1", r"unknown key damping; did you mean optimizer\.damping"),
        ("zzz=1", "unknown key zzz; The keys here are name"),
        ("steps=1.5", "steps: expected `int`, got `float`"),
        ("steps=true", "steps: expected `int`, got `bool`"),
        ("sampling.move=gibbs", "sampling.move: .*choose one of 'metropolis', 'langevin'"),
        ("optimizer.damping=nan", "optimizer.damping is nan but must be above 0"),
        ("optimizer=3", r"optimizer is a section, written \[optimizer\], not a value"),
        ("steps.more=3", "steps is a value, not a section"),
        ("steps", "write section.key=value"),
        ("steps=[1", "is no TOML value"),
        ("steps=1\nseed=2", "give one value on one line"),
        ("optimizer.momentum=1.0", "must be 0 or more and below 1"),
        ("sampling.sweeps=0", "sampling.sweeps is 0 but must be 1 or more"),
        ("checkpoint.keep=1", "checkpoint.keep is 1 but must be 2 or more"),
        ("transfer.number=3", "transfer.number is 3 but must be even and 2 or more"),
        ("name=../up", "name is '../up' but must be a plain folder name without \"/\""),
    ],
)
def test_bad_values_are_named(config_file, override, complaint):
    with pytest.raises(InputError, match=complaint):
        load_config(config_file, [override])


def test_a_retired_key_is_named_unless_it_says_what_is_done_anyway(config_file):
    plain = load_config(config_file)
    config_file.write_text(MINIMAL + 'schedule = "uniform"\n')  # as runs of older versions have saved it
    assert load_config(config_file) == plain
    config_file.write_text(MINIMAL + 'schedule = "variance"\n')
    with pytest.raises(InputError, match=r"try\.toml: data\.schedule is no longer a choice, .*; take the line out$"):
        load_config(config_file)
    config_file.write_text(MINIMAL)
    with pytest.raises(InputError, match=r"data\.schedule is no longer a choice"):
        load_config(config_file, ["data.schedule=variance"])


@pytest.mark.parametrize(
    ("line", "notice"),
    [
        ('optimizer.method = "spring"', None),
        ('optimizer.method = "adam"', "optimizer.method = 'adam' is no longer a choice and is not read"),
        ("sampling.target_acceptance = 0.5", None),
        ("sampling.target_acceptance = 0.7", "sampling.target_acceptance = 0.7 is no longer a choice and is not read"),
        ("memory.jacobian_bytes = 7", None),
    ],
)
def test_retired_keys_of_older_runs_are_not_read(config_file, recwarn, line, notice):
    plain = load_config(config_file)
    config_file.write_text(line + "\n" + MINIMAL)
    assert load_config(config_file) == plain
    assert [str(warning.message) for warning in recwarn] == ([] if notice is None else [f"{config_file}: {notice}"])


def test_the_table_of_keys_in_the_readme_is_complete_and_has_the_defaults():
    text = (Path(__file__).parents[2] / "configs" / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Keys of a config")[2].partition("\n## ")[0]
    listed = {}
    for row in re.findall(r"(?m)^\| (`.*?`) \| (.*?) \|", section):
        keys = re.findall(r"`([\w.]+)`", row[0])
        listed |= dict(zip(keys, row[1].split(", ") if len(keys) > 1 else [row[1].strip("`")], strict=True))
    described, prefix = {}, ""
    for line in describe_config().splitlines():
        if found := re.match(r"\[(\w+)\]", line):
            prefix = f"{found[1]}."
        elif found := re.match(r"  (\w+) (?:= (.*?)  +|\((required|unset)\))", line):
            described[prefix + found[1]] = found[2] or found[3]
    assert len(described) > 40
    assert listed == described


def test_minsr_was_spring_without_momentum(config_file, recwarn):
    config_file.write_text('optimizer = { method = "minsr", momentum = 0.9 }\n' + MINIMAL)
    assert load_config(config_file).optimizer.momentum == 0
    assert not recwarn


def test_the_old_name_of_the_weights_of_r_s_is_read(config_file):
    config_file.write_text(MINIMAL + "density_weights = [[1.0, 1.5, 2.0]]\n")
    assert load_config(config_file).data.r_s_weights == ((1.0, 1.5, 2.0),)
    config_file.write_text(MINIMAL + "density_weights = []\nr_s_weights = []\n")
    with pytest.raises(InputError, match=r"density_weights is the old name of data\.r_s_weights"):
        load_config(config_file)


def test_unreadable_configs(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: no such file"):
        load_config(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("name = \n")
    with pytest.raises(InputError, match=r"bad\.toml: not valid TOML: .*line 1"):
        load_config(bad)
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not a text file in UTF-8"):
        load_config(bad)
    bad.write_text('name = "x"\nsteps = 1\n')
    with pytest.raises(InputError, match="missing required field `data`"):
        load_config(bad)


def test_a_missing_recipe_is_only_missed_when_used(config_file):
    (config_file.parent / "set.toml").unlink()
    config = load_config(config_file)
    with pytest.raises(InputError, match=r"set\.toml is neither beside the config nor in the current folder"):
        recipe_path(config)


def test_saved_config_reloads_identical_and_the_folder_can_be_moved(config_file, tmp_path):
    config = load_config(
        config_file,
        ["checkpoint.every_nth_kept=500", "data.cache=/some/where", "seed=7", 'data.phase_weights=[["bcc", 2]]'],
    )
    save_config(config, tmp_path / "run")
    save_config(load_config(tmp_path / "run"), tmp_path / "run")  # saving into itself must not lose the recipe
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    again = load_config(tmp_path / "elsewhere")
    assert changed_keys(config, again) == []
    assert dataclasses.replace(again, data=config.data) == config
    assert recipe_path(again).read_text() == recipe_path(config).read_text()
    assert again.data.cache == "/some/where"


# Surrogates cannot stand in a UTF-8 file.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False)


@given(st.dictionaries(st.sampled_from("abc"), numbers | texts | st.booleans() | st.lists(numbers | texts), min_size=1))
def test_written_toml_reads_back_equal(values):
    import tomllib

    table = {**values, "section": {**values, "inner": values}}
    assert tomllib.loads(to_toml(table)) == table


def test_every_key_is_explained():
    text = describe_config()
    sections = [
        RunConfig,
        *(f.default_factory for f in dataclasses.fields(RunConfig) if callable(f.default_factory)),
    ]
    for kind in sections:
        plain = [f.name for f in dataclasses.fields(kind) if not callable(f.default_factory) and f.name != "data"]
        meanings = attribute_meanings(kind)
        for name in plain:
            assert meanings.get(name), f"{kind.__name__}.{name} has no meaning in its docstring"
            assert meanings[name] in text


@pytest.mark.parametrize(("steps", "cooldown"), [(0, 0), (11, 5), (100_000, 600)])
def test_a_cooldown_leaves_half_of_a_fine_tuning_at_its_full_rate(config_file, steps, cooldown):
    parent = load_config(config_file, ["optimizer.cooldown_steps=600"])
    short = finetune_config(parent, name="short", recipe="set.toml", steps=steps, walkers=32, together=1)
    assert (short.steps, short.optimizer.cooldown_steps) == (steps, cooldown)
