from pathlib import Path

import pytest

from fnqs.errors import InputError
from fnqs_data.generate.build import plan, shares
from fnqs_data.generate.recipe import parse_recipe, read_recipe

CONFIGS = Path(__file__).parents[2] / "configs" / "datasets"

GOOD = """
name = "small"
seed = 5
[held_out]
r_s = [[1.5, 1.6]]
phases = ["fcc"]
[[family]]
phase = "bcc"
count = 10
number = [2, 4]
weight = [1, 2]
r_s = [1, 2.5]
displacement = 0.1
twist = [0.25, 0, 0.5]
"""


def test_a_recipe_is_read():
    recipe = parse_recipe(GOOD)
    (family,) = recipe.family
    assert (recipe.name, recipe.seed, recipe.held_out.r_s) == ("small", 5, [(1.5, 1.6)])
    assert (family.r_s, family.displacement, family.twist) == ((1.0, 2.5), 0.1, (0.25, 0.0, 0.5))


def test_the_old_name_of_r_s_is_read():
    assert parse_recipe(GOOD.replace("r_s =", "density =")) == parse_recipe(GOOD)
    with pytest.raises(InputError, match="density is the old name of r_s"):
        parse_recipe(GOOD + "density = 1.4\n")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_shipped_recipes_are_valid(path):
    recipe, text = read_recipe(path)
    assert recipe.name == path.stem
    assert "Command:" in text


def test_shares_add_up():
    (family,) = parse_recipe(GOOD).family
    assert shares(family) == {2: 3, 4: 7}
    blocks = plan([family, family])
    assert sum(block.count for block in blocks) == 20
    assert [(b.n_atoms, b.first, b.count) for b in blocks] == [(2, 0, 3), (4, 0, 7), (2, 3, 3), (4, 7, 7)]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed = 5", "sed = 5", "'sed' is unknown; did you mean 'seed'"),
        ("displacement = 0.1", "displacment = 0.1", "did you mean 'displacement'"),
        ("phases =", "phase =", "did you mean 'phases'"),
        ('phase = "bcc"', 'phase = "bbc"', "did you mean 'bcc'"),
        ('phases = ["fcc"]', 'phases = ["fc"]', "did you mean 'fcc'"),
        ("displacement = 0.1", "bond = 1.4", "means nothing for phase bcc"),
        ("displacement = 0.1", "temperature = -5", "temperature"),
        ("r_s = [1, 2.5]", "", "needs r_s"),
        ("number = [2, 4]", "number = [2, 3]", "even numbers"),
        ("number = [2, 4]", "number = []", "even numbers"),
        ("weight = [1, 2]", "weight = [1]", "weight"),
        ("r_s = [1, 2.5]", "r_s = [2.5, 1]", "r_s"),
        ("r_s = [1, 2.5]", "r_s = nan", "r_s"),
        ("r_s = [1, 2.5]", 'r_s = "dense"', "r_s"),
        ("count = 10", "count = 0", "count"),
        ("displacement = 0.1", "closest = -1.0", "closest"),
        ("twist = [0.25, 0, 0.5]", 'twist = "gama"', "twist"),
        ("twist = [0.25, 0, 0.5]", "supercell = [1, 0, 1]", "supercell"),
        ('name = "small"', 'name = "../small"', "name"),
        ('name = "small"', "", "name"),
        ("seed = 5", "seed = -5", "seed"),
        ("seed = 5", "seed = ", "TOML"),
        ('phase = "bcc"', "", "no phase"),
        ("displacement = 0.1", "displacement = 0.1\ntemperature = 300", "give one of them"),
        ("displacement = 0.1", "frames = 4", "means nothing for phase bcc"),
        ('phase = "bcc"', 'phase = "cmca4"', "did you mean 'cmca-4'"),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, says):
    assert old in GOOD
    path = tmp_path / "recipe.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=r"recipe\.toml") as error:
        read_recipe(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ['name = "x"', 'name = "x"\nfamily = 3', 'name = "x"\nfamily = [3]'])
def test_a_recipe_without_families_is_refused(text):
    with pytest.raises(InputError):
        parse_recipe(text)


def test_unreadable_recipes_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="no such recipe"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes\.toml"):
        read_recipe(tmp_path / "bytes.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path)
