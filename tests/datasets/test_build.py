import errno
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fnqs.configuration import find_fault, wigner_seitz_radius
from fnqs.errors import InputError
from fnqs_data.generate import build
from fnqs_data.generate.build import build_recipe, cached_dataset
from fnqs_data.generate.draw import closest_pairs, random_strain
from fnqs_data.inspect.distances import bond_peak, pair_distribution
from fnqs_data.store import shards
from fnqs_data.store.verify import verify_dataset

RECIPE = """
name = "mixed"
seed = 11
[held_out]
r_s = [[1.6, 1.9]]
phases = ["fcc"]
""" + "".join(
    f"""
[[family]]
phase = "{phase}"
count = {count}
number = {numbers}
r_s = [1.3, 2.5]
strain = 0.03
rotate = true
{extra}
"""
    for phase, count, numbers, extra in [
        ("bcc", 12, [2, 4, 8], "displacement = [0.0, 0.2]"),
        ("cs-iv", 6, [8], "temperature = [0, 1000]"),
        ("fcc", 6, [4], 'twist = "random"'),
        ("beta-tin", 6, [8], "displacement = 0.1"),
        ("pa3", 12, [8], "displacement = 0.1\nbond_spread = 0.05"),
        ("fcc-rotors", 12, [2, 8], "displacement = 0.1"),
        ("hcp-rotors", 12, [4], "displacement = 0.1"),
        ("cmca-4", 12, [4, 8], "temperature = 0"),
        ("liquid-atomic", 12, [4, 8], "temperature = [1000, 4000]"),
        ("liquid-molecular", 12, [4, 8], "temperature = 1000"),
        ("liquid-mixed", 12, [8], "temperature = 2000\nframes = 3"),
    ]
)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "mixed.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def dataset(recipe_file, tmp_path_factory):
    return build_recipe(recipe_file, tmp_path_factory.mktemp("built") / "set", workers=1, progress=False)


def test_every_configuration_is_sound(dataset):
    assert len(dataset) == 114
    for record in dataset.read(range(len(dataset))):
        assert find_fault(record.configuration) is None
        assert 1.3 - 1e-9 <= record.wigner_seitz_radius <= 2.5 + 1e-9  # r_s is the root of a determinant
        configuration = record.configuration
        assert closest_pairs(configuration.cell[None], configuration.protons[None])[0] >= 0.9
        assert bool(record.configuration.twist.any()) == (record.phase == "fcc")
        assert (record.temperature is not None) == record.phase.startswith(("liquid", "cs-iv", "cmca-4"))
        assert (record.trajectory != "") == record.phase.startswith("liquid")


def test_frames_of_a_trajectory_share_its_name_temperature_and_density(dataset):
    trajectories = {}
    for record in dataset.read(range(len(dataset))):
        if record.trajectory:
            trajectories.setdefault(record.trajectory, []).append(record)
    sizes = {phase: [] for phase in dataset.phases}
    for members in trajectories.values():
        assert len({(r.phase, r.n_atoms, r.temperature, round(r.wigner_seitz_radius, 9)) for r in members}) == 1
        sizes[members[0].phase].append(len(members))
    # A frame may be dropped when two protons come too close, and another trajectory then fills the number.
    assert sum(sizes["liquid-mixed"]) == 12
    assert max(sizes["liquid-mixed"]) == 3
    assert set(sizes["liquid-atomic"]) == {1}


def test_splits(dataset):
    for record in dataset.read(range(len(dataset))):
        expected = "held-out-density" if 1.6 <= record.wigner_seitz_radius <= 1.9 else "train"
        assert record.split == ("held-out-phase" if record.phase == "fcc" else expected)
    assert set(dataset.splits) == {"train", "held-out-density", "held-out-phase"}


def test_the_number_of_processes_does_not_matter(recipe_file, dataset, tmp_path):
    assert build_recipe(recipe_file, tmp_path / "set", workers=2, progress=False).digest == dataset.digest


def test_the_seed_does_matter(dataset, tmp_path):
    (tmp_path / "other.toml").write_text(RECIPE.replace("seed = 11", "seed = 12"))
    assert build_recipe(tmp_path / "other.toml", tmp_path / "set", progress=False).digest != dataset.digest


@pytest.mark.parametrize("phase", ["pa3", "fcc-rotors", "hcp-rotors", "cmca-4", "liquid-molecular"])
def test_molecular_sets_have_a_bond_and_atomic_ones_none(dataset, phase):
    edges = np.arange(0.0, 4.01, 0.05)

    def g(name):
        return pair_distribution([r.configuration for r in dataset.read(dataset.where(phase=name))], edges)[0]

    molecular = g(phase)
    peak = bond_peak(molecular, edges)
    assert peak is not None
    assert abs(peak - 1.4) < 0.1  # the free bond; in the solid it is up to 0.04 shorter
    assert molecular[edges[:-1] < 2].max() > 3
    for atomic in ("bcc", "cs-iv", "beta-tin", "liquid-atomic"):
        assert bond_peak(g(atomic), edges) is None
        assert g(atomic)[(edges[:-1] > 1.25) & (edges[:-1] < 1.5)].max() < 1


@pytest.mark.parametrize(
    ("table", "number", "r_s"),
    [
        ('phase = "molecule"\nbond = 1.4\nbox = 12.0', 2, 12 / (8 * np.pi / 3) ** (1 / 3)),
        ('phase = "chain"\nnumber = [4]\nspacing = 1.8\nvacuum = 10.0', 4, (720 * 3 / 16 / np.pi) ** (1 / 3)),
        (
            'phase = "chain"\nnumber = [6]\nspacing = 2.0\nvacuum = 12.0\nopen = true',
            6,
            (22 * 144 / 8 / np.pi) ** (1 / 3),
        ),
        ('phase = "chain"\nnumber = [4]\nspacing = [1.8, 1.8]\nvacuum = 10.0\ntwist = [[0.1, 0.4], 0, 0]', 4, None),
        ('phase = "bcc"\nnumber = [16]\nsupercell = [2, 2, 2]\nr_s = 1.31', 16, 1.31),
    ],
)
def test_benchmark_structures(tmp_path, table, number, r_s):
    (tmp_path / "one.toml").write_text(f'name = "one"\n[[family]]\n{table}\n')
    dataset = build_recipe(tmp_path / "one.toml", tmp_path / "set", progress=False)
    assert len(dataset) == 1
    configuration = dataset[0].configuration
    assert configuration.protons.shape == (number, 3)
    if r_s is not None:
        assert wigner_seitz_radius(configuration) == pytest.approx(r_s, rel=1e-12)  # rounding of a cube root
    if "twist" in table:
        assert 0.1 <= configuration.twist[0] <= 0.4
    assert not configuration.twist[1:].any()
    nearest = closest_pairs(configuration.cell[None], configuration.protons[None])[0]
    expected = {"molecule": 1.4, "chain": 1.8 if number == 4 else 2.0}
    phase = dataset[0].phase
    # bcc: nearest neighbours at sqrt(3)/2 a with a = (8 pi / 3)^(1/3) r_s.
    distance = expected.get(phase, np.sqrt(3) / 2 * (8 * np.pi / 3) ** (1 / 3) * 1.31)
    assert nearest == pytest.approx(distance, rel=1e-12)


def test_strain_keeps_the_volume():
    rng = np.random.default_rng(0)
    for _ in range(20):
        deformation = random_strain(0.1, rng)
        assert np.linalg.det(deformation) == pytest.approx(1, abs=1e-13)  # trace removed up to rounding
        np.testing.assert_allclose(deformation, deformation.T, atol=1e-14)


def test_a_family_that_cannot_be_drawn_is_an_input_error(tmp_path):
    (tmp_path / "dense.toml").write_text(
        'name = "dense"\n[[family]]\nphase = "bcc"\nnumber = [2]\nr_s = 0.4\ncount = 2\n'
    )
    with pytest.raises(InputError, match="bohr apart"):
        build_recipe(tmp_path / "dense.toml", tmp_path / "set", progress=False)
    assert not (tmp_path / "set").exists()


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text('name = "small"\n[[family]]\nphase = "sc"\nnumber = [2]\nr_s = [1.2, 2.0]\ncount = 5\n')
    return path


def test_the_cache_builds_once(small, tmp_path, monkeypatch):
    builds = []
    original = build.build_recipe
    monkeypatch.setattr(build, "build_recipe", lambda *a, **k: builds.append(1) or original(*a, progress=False))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: cached_dataset(small, tmp_path / "cache"), range(4)))
    assert len(builds) == 1
    assert len({dataset.digest for dataset in found}) == 1
    assert cached_dataset(small, tmp_path / "cache").folder == found[0].folder
    small.write_text(small.read_text().replace("count = 5", "count = 6"))
    assert len(cached_dataset(small, tmp_path / "cache")) == 6
    assert len(builds) == 2


def test_a_damaged_or_unfinished_cache_is_built_again(small, tmp_path):
    dataset = cached_dataset(small, tmp_path / "cache")
    (dataset.folder / "manifest.json").write_text("{")
    leftover = dataset.folder.parent / f".{dataset.folder.name}.partial-999"
    leftover.mkdir()
    again = cached_dataset(small, tmp_path / "cache")
    assert again.digest == dataset.digest
    assert verify_dataset(again.folder) == []
    assert not leftover.exists()


def test_the_cache_folder_can_be_chosen(small, tmp_path, monkeypatch):
    monkeypatch.setenv("FNQS_CACHE", str(tmp_path / "mine"))
    assert cached_dataset(small).folder.is_relative_to(tmp_path / "mine")


def test_a_full_disk_leaves_nothing(small, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards.ShardWriter, "write", full)
    with pytest.raises(OSError, match="No space"):
        build_recipe(small, tmp_path / "set", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]


def test_the_range_of_r_s_can_be_wider(tmp_path):
    (tmp_path / "wide.toml").write_text(
        'name = "wide"\n'
        '[[family]]\nphase = "bcc"\nnumber = [8]\nr_s = [0.5, 5.0]\ncount = 20\nclosest = 0.4\n'
        '[[family]]\nphase = "liquid-atomic"\nnumber = [4]\nr_s = [0.6, 5.0]\ncount = 20\nclosest = 0.4\n'
        "temperature = 5000\n"
    )
    radii = build_recipe(tmp_path / "wide.toml", tmp_path / "set", progress=False).wigner_seitz_radii
    assert radii.min() < 1.0
    assert radii.max() > 4.0


def test_displacements_follow_the_temperature(tmp_path):
    # bcc at r_s = 1.3: 0.212 r_s of zero-point motion and 0.255 r_s at 2000 K (`test_thermal` checks the model).
    found = {}
    for temperature in (0, 2000):
        (tmp_path / "one.toml").write_text(
            'name = "one"\n[[family]]\nphase = "bcc"\nnumber = [16]\nsupercell = [2, 2, 2]\nr_s = 1.3\n'
            f"count = 60\nclosest = 0.3\ntemperature = {temperature}\n"
        )
        dataset = build_recipe(tmp_path / "one.toml", tmp_path / f"set{temperature}", progress=False)
        protons = np.stack([r.configuration.protons for r in dataset.read(range(60))])
        # Displacements from the mean place over 60 draws; sites are the same in all of them.
        spread = protons - protons.mean(axis=0)
        found[temperature] = np.sqrt(np.mean(np.sum(spread**2, axis=-1)) * 60 / 59) / 1.3
    # 16 x 60 x 3 Gaussians: the rms is known to 1.3 %, and four times that is allowed.
    assert found[0] == pytest.approx(0.212, rel=0.05)
    assert found[2000] == pytest.approx(0.255, rel=0.05)
