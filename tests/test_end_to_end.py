"""The commands one after the other on a tiny data set: train, resume, evaluate, fine-tune, transfer."""

import json

import ase.io
import jax
import numpy as np
import pytest
from ase import Atoms, units

from fnqs_data.commands import main as data_main
from fnqs_eval.commands import main as evaluate_main
from fnqs_eval.transfer.item_result import read_results
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_meta, restore_params
from fnqs_train.commands import finetune_main, train_main
from fnqs_train.monitoring.metrics import read_metrics

pytestmark = pytest.mark.slow

RECIPE = """
name = "tiny"
seed = 3

[held_out]
r_s = [[1.5, 1.6]]
phases = ["fcc"]

[[family]]
phase = "bcc"
count = 16
number = [2, 4]
r_s = [1.3, 1.45]
displacement = [0.0, 0.1]

[[family]] # held out by density
phase = "bcc"
count = 2
number = [2]
r_s = [1.52, 1.58]

[[family]] # held out by phase
phase = "fcc"
count = 2
number = [2]
r_s = [1.3, 1.4]
"""

CONFIG = """
name = "tiny"
steps = 4

[data]
recipe = "tiny-recipe.toml"

[model]
features = 8
vectors = 4
amplitudes = 4
radial_functions = 4
proton_rounds = 1

[sampling]
walkers_per_configuration = 32
configurations_per_step = 2
sweeps = 5
equilibration_sweeps = 20

[checkpoint]
every_steps = 2

[log]
wandb = "disabled"
every_steps = 1

[transfer]
walkers = 64
equilibration_sweeps = 50
evaluation_sweeps = 320
target_error = 0.05
configurations = 2
number = 2
finetune_steps = 3
"""

AS_TRAINED = ["--walkers", "32", "--together", "2"]
"""Walkers and configurations of a step as in CONFIG: fine-tuning then runs the programs of the training."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to work in, with the recipe, the config and a cache of its own."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny-recipe.toml").write_text(RECIPE)
    (folder / "tiny.toml").write_text(CONFIG)
    edge = 1.4 * (8 * np.pi / 3) ** (1 / 3) * units.Bohr  # r_s = 1.4 bohr for two atoms
    cube = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    frames = [Atoms("H2", scaled_positions=cube * x, cell=edge * np.eye(3), pbc=True) for x in (1.0, 0.95, 0.9)]
    ase.io.write(folder / "mine.extxyz", frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FNQS_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def run(place):
    """The run folder after the training command, half of whose steps are resumed."""
    assert train_main(["tiny.toml", "--set", "steps=2"]) == 0
    first = read_metrics(place / "runs" / "tiny")
    assert train_main(["tiny.toml", "--resume"]) == 0
    assert read_metrics(place / "runs" / "tiny")[:2] == first
    return place / "runs" / "tiny"


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_train_writes_a_run_folder(run, place, capsys):
    assert {p.name for p in run.iterdir()} >= {"config.toml", "recipe.toml", "metrics.jsonl", "checkpoints"}
    assert (run / "recipe.toml").read_text() == RECIPE
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {row["number"] for row in rows} == {2, 4}  # both N in one run
    assert all(np.isfinite(row["energy_per_atom"]) for row in rows)
    assert resolve_checkpoint(run).step == 4
    assert restore_meta(run)["configurations"] == 16
    (dataset,) = (path for path in (place / "cache" / "datasets").iterdir() if path.is_dir())
    assert data_main(["verify", str(dataset)]) == 0
    # The command once more finds the run complete and changes nothing.
    before = files_of(run)
    capsys.readouterr()
    assert train_main(["tiny.toml"]) == 0
    assert "is complete, 4 steps" in capsys.readouterr().out
    assert files_of(run) == before


def test_evaluate_energies_of_a_file(run, capsys, uniform_bcc):
    sampling = ["--walkers", "64", "--error", "0.05", "--measurements", "32", "--equilibration", "50"]
    before = files_of(run / "checkpoints")
    both = ["--frames", "0:2"]
    assert evaluate_main(["energies", str(run), "--configurations", "mine.extxyz", *sampling, *both]) == 0
    printed = capsys.readouterr().out
    for wanted in ("configuration", "mine.extxyz#0", "mine.extxyz#1", "1.400", "E/N", "Γ"):
        assert wanted in printed
    document = json.loads((run / "energies-mine.json").read_text())
    assert document["provenance"]["step"] == 4
    assert document["provenance"]["settings"]["walkers"] == 64
    assert document["units"]["energy_per_atom"] == "Ha"
    first, second = document["results"]
    assert first["identifier"] == "mine.extxyz#0"
    assert first["number"] == 2
    assert first["density_parameter"] == pytest.approx(1.4, abs=1e-6)  # eight decimals of an angstrom in the file
    assert first["twist"] == [0, 0, 0]
    assert first["label_energy_per_atom"] is None
    for result in (first, second):
        assert 0 < result["error_per_atom"] <= 0.05
        uniform, error = uniform_bcc(1.4 * (8 * np.pi / 3) ** (1 / 3)), result["error_per_atom"]
        # Four steps need not have led below uniform electrons.
        assert uniform - 0.07 - 4 * error < result["energy_per_atom"] < uniform + 0.1 + 4 * error
        assert result["variance_per_atom"] > 0
        assert 0.1 < result["acceptance"] < 0.97
    # Other frames, another place for the numbers.
    last = ["--frames", "1:3", "--output", "last.json"]
    assert evaluate_main(["energies", f"{run}/checkpoints/4", "--configurations", "mine.extxyz", *sampling, *last]) == 0
    again, third = json.loads((run.parent.parent / "last.json").read_text())["results"]
    assert [again["identifier"], third["identifier"]] == ["mine.extxyz#1", "mine.extxyz#2"]
    # The same random numbers at another place of the batch: rounding may turn over the move of a walker, no more.
    assert abs(again["energy_per_atom"] - second["energy_per_atom"]) < second["error_per_atom"]
    assert files_of(run / "checkpoints") == before


def test_finetune_makes_a_run_of_its_own(run, place, capsys):
    before = files_of(run)
    options = ["--frames", "0:2", "--steps", "3", *AS_TRAINED]
    assert finetune_main([str(run), "--configurations", "mine.extxyz", *options]) == 0
    assert "from tiny step 4" in capsys.readouterr().out
    assert files_of(run) == before
    tuned = place / "runs" / "finetune-mine"
    assert [row["step"] for row in read_metrics(tuned)] == [1, 2, 3]
    assert restore_meta(tuned)["parent"] == "tiny step 4"
    assert resolve_checkpoint(tuned).step == 3
    options = ["--walkers", "64", "--error", "0.05", "--measurements", "32", "--equilibration", "50"]
    assert evaluate_main(["energies", str(tuned), "--configurations", f"{tuned}/dataset", *options]) == 0
    assert (tuned / "energies-dataset.json").exists()


def test_finetuning_of_the_heads_leaves_the_rest(run, place):
    options = ["--frames", "0:2", "--steps", "2", *AS_TRAINED, "--train", "heads"]
    assert finetune_main([str(run), "--configurations", "mine.extxyz", *options, "--output", "runs/heads"]) == 0
    assert 'train = "heads"' in (place / "runs" / "heads" / "config.toml").read_text()
    before, after = restore_params(run), restore_params(place / "runs" / "heads")
    jax.tree.map(np.testing.assert_array_equal, after["encoder"]["protons"], before["encoder"]["protons"])
    jax.tree.map(np.testing.assert_array_equal, after["amplitude"]["electrons"], before["amplitude"]["electrons"])
    assert np.any(after["encoder"]["onsite_head"]["kernel"] != before["encoder"]["onsite_head"]["kernel"])


def test_finetuning_stops_by_itself(run, place, capsys):
    options = ["--frames", "0:2", "--steps", "100", "--until", "0.5", *AS_TRAINED]
    output = ["--output", "runs/until"]
    assert finetune_main([str(run), "--configurations", "mine.extxyz", *options, *output]) == 0
    assert "converged to 500 mHa per atom after 40 steps" in capsys.readouterr().out  # two windows
    assert [row["step"] for row in read_metrics(place / "runs" / "until")] == list(range(1, 41))
    assert restore_meta(place / "runs" / "until")["parent"] == "tiny step 4"


def test_transfer_compares_concludes_and_draws(run, capsys):
    before = files_of(run / "checkpoints")
    assert evaluate_main(["transfer", str(run)]) == 0
    printed = capsys.readouterr().out
    for wanted in ("held-out: zero-shot", "bcc-n02-", "fcc-n02-", "limit E/N (Ha)", "3 steps from scratch"):
        assert wanted in printed
    assert "held-out: 3 steps of fine-tuning" in printed
    folder = run / "transfer"
    (item,), provenance = read_results(folder / "results.json")
    assert provenance["protocol"] == "the default protocol"
    assert [row.phase for row in item.single] == ["bcc", "fcc"]
    assert 1.5 <= item.single[0].density_parameter <= 1.6  # the density held out
    assert [row.steps for row in item.single] == [0, 0]
    assert [point.step for point in item.fine_tuned.points] == [0, 3]
    assert [point.step for point in item.from_scratch.points] == [3]
    assert item.limit == item.fine_tuned.points[-1]  # only the ends are evaluated
    assert all(0 < point.error <= 0.05 for point in (item.zero_shot, item.limit, item.from_scratch.points[0]))
    assert len({item.zero_shot.energy, item.limit.energy, item.from_scratch.points[0].energy}) == 3
    for picture in ("transfer.png", "training.png"):
        assert (folder / picture).is_file()
    for name in ("fine-tuned", "from-scratch"):
        # As in the run's own steps, whose programs serve here too.
        assert "walkers_per_configuration = 32" in (folder / "held-out" / name / "config.toml").read_text()
        assert len(read_metrics(folder / "held-out" / name)) == 3
    assert files_of(run / "checkpoints") == before
    # Once more: nothing is computed anew, and the same is said.
    written = files_of(folder / "held-out")
    assert evaluate_main(["transfer", str(run)]) == 0
    assert capsys.readouterr().out == printed[printed.index("held-out: zero-shot") :]  # the trainings stand before it
    assert files_of(folder / "held-out") == written
