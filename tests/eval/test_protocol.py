"""A held-out protocol on a tiny model: what it writes, that it goes on after a kill, and what it refuses."""

import dataclasses
import json
import tomllib

import numpy as np
import pytest
from matplotlib.figure import Figure

from fnqs.errors import InputError
from fnqs_data.store.record import Record
from fnqs_data.store.write import write_dataset
from fnqs_eval.commands import main as evaluate_main
from fnqs_eval.transfer import held_out, item_result
from fnqs_eval.transfer.default_protocol import default_protocol
from fnqs_eval.transfer.item_result import HEADINGS, read_results
from fnqs_eval.transfer.protocol import Item, check_protocol, item_records, read_protocol
from fnqs_eval.transfer.protocol_picture import BEFORE, draw_item
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_meta, restore_params
from fnqs_train.commands import train_main
from fnqs_train.config import load_config
from fnqs_train.monitoring.metrics import read_metrics

pytestmark = pytest.mark.slow

CONFIG = """name = "tiny"
steps = 2
data.recipe = "set"
log.wandb = "disabled"
model = { features = 8, vectors = 4, amplitudes = 4, radial_functions = 4, proton_rounds = 1 }
sampling = { walkers_per_configuration = 32, configurations_per_step = 2, sweeps = 5, equilibration_sweeps = 20 }
"""
PROTOCOL = """within = 0.5
walkers = 32
equilibration_sweeps = 20
measurements = 32
forgetting_configurations = 2
forgetting_error = 0.1

[defaults]
walkers = 32
finetune_steps = 2
scratch_steps = 3

[[item]]
name = "density"
split = "held-out-density"
configurations = 2

[[item]]
name = "file"
data = "other"
configurations = 2
train = "heads"
scratch_steps = 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_bcc):
    """A folder to work in, with a trained run and a protocol."""
    folder = tmp_path_factory.mktemp("protocol")
    # Two configurations everywhere: trainings and evaluations of all items then run the same programs.
    held = [dataclasses.replace(make_bcc(i), split="held-out-density") for i in (7, 8)]
    write_dataset(folder / "set", [make_bcc(0), make_bcc(1), *held])
    write_dataset(folder / "other", [make_bcc(i) for i in range(3, 6)])
    (folder / "tiny.toml").write_text(CONFIG)
    (folder / "held.toml").write_text(PROTOCOL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FNQS_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        assert train_main(["tiny.toml"]) == 0
        yield folder


@pytest.fixture(scope="module")
def done(place):
    """The folder of the results, of a protocol that was stopped twice before."""
    run = place / "runs" / "tiny"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    command = ["transfer", "runs/tiny", "--protocol", "held.toml"]
    trained, evaluated = [], []
    train, evaluate = held_out.train, held_out.evaluate_with_journal

    def stop_training(config, *arguments, **options):
        trained.append((config.name, config.steps))
        if trained[-1] == ("from-scratch", 2) and len(trained) < 6:
            raise KeyboardInterrupt
        return train(config, *arguments, **options)

    def stop_evaluating(*arguments):
        path = arguments[4].path
        evaluated.append(f"{path.parent.name}/{path.name}")
        if len(evaluated) == 3:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "train", stop_training)
        patch.setattr(held_out, "evaluate_with_journal", stop_evaluating)
        assert [evaluate_main(command) for _ in range(3)] == [130, 130, 0]
    assert {path: path.read_bytes() for path in before} == before  # the foundation is left as it is
    # Only what was cut off was done again: an evaluation of two steps, and a training to two.
    assert [name for name in set(evaluated) if evaluated.count(name) > 1] == ["density/fine-tuned-2.jsonl"]
    assert trained.count(("from-scratch", 3)) == 1
    return run / "transfer-held"


def test_every_item_has_energies_curves_and_forgetting(done, uniform_bcc):
    items, provenance = read_results(done / "results.json")
    assert [item.name for item in items] == ["density", "file"]
    assert provenance["step"] == 2
    first, second = items
    assert first.configurations == ("bcc-7", "bcc-8")
    assert [row.identifier for row in second.single] == list(second.configurations)
    assert np.mean([row.energy_per_atom for row in second.single]) == pytest.approx(second.zero_shot.energy)
    assert second.configurations == ("bcc-3", "bcc-5")  # spread from end to end
    assert [point.step for point in first.fine_tuned.points] == [0, 1, 2]
    assert [point.step for point in first.from_scratch.points] == [1, 2, 3]
    assert [point.step for point in second.from_scratch.points] == [1]
    for item in items:
        assert item.fine_tuned.points[0] == item.zero_shot
        assert item.fine_tuned.seconds_per_step > 0
        for point in (item.zero_shot, item.limit, *item.fine_tuned.points, *item.from_scratch.points):
            assert 0 < point.error < 0.2
            uniform = np.mean([uniform_bcc(2.6 + 0.1 * int(name.removeprefix("bcc-"))) for name in item.configurations])
            assert uniform - 0.07 - 4 * point.error < point.energy < uniform + 0.1 + 4 * point.error
        assert item.forgetting is not None
        assert item.forgetting.configurations == 2
        assert np.isfinite(item.forgetting.change)
        assert len(item.row()) == len(HEADINGS)
    derived = json.loads((done / "results.json").read_text())["items"][0]["derived"]
    assert derived["zero_shot_excess"] == pytest.approx(first.zero_shot_excess)
    drawn = draw_item(Figure().add_subplot(), first)  # as in transfer.png
    shown = [(x, y) for _, x, y, _ in drawn]
    curves = [*first.fine_tuned.points[1:], *first.from_scratch.points]
    assert shown == [*((point.step, point.energy) for point in curves), (BEFORE, first.zero_shot.energy)]
    assert (done / "transfer.png").is_file()


def test_trainings_are_runs_that_know_their_parent(done):
    tuned, scratch = done / "density" / "fine-tuned", done / "density" / "from-scratch"
    assert [row["step"] for row in read_metrics(tuned)] == [1, 2]
    assert [row["step"] for row in read_metrics(scratch)] == [1, 2, 3]
    assert restore_meta(tuned)["parent"] == "tiny step 2"
    assert restore_meta(scratch)["parent"] == ""
    assert resolve_checkpoint(scratch).step == 3
    # Only heads were trained of the second item.
    parent, heads = restore_params(done.parent), restore_params(done / "file" / "fine-tuned")
    np.testing.assert_array_equal(heads["encoder"]["filter_head"]["kernel"], parent["encoder"]["filter_head"]["kernel"])
    assert np.any(heads["encoder"]["onsite_head"]["bias"] != parent["encoder"]["onsite_head"]["bias"])


def test_once_more_computes_nothing_and_longer_goes_on(done, place, monkeypatch, capsys):
    results = (done / "results.json").read_bytes()
    steps = []
    train = held_out.train

    def note(config, *arguments, **options):
        steps.append((config.name, config.steps))
        return train(config, *arguments, **options)

    monkeypatch.setattr(held_out, "train", note)
    command = ["transfer", "runs/tiny", "--protocol", "held.toml"]
    assert evaluate_main(command) == 0
    assert steps == []
    assert (done / "results.json").read_bytes() == results
    printed = capsys.readouterr().out
    for heading in HEADINGS:
        assert heading in printed
    (place / "held.toml").write_text(PROTOCOL.replace("scratch_steps = 1", "scratch_steps = 2"))
    assert evaluate_main(command) == 0
    assert steps == [("from-scratch", 2)]
    (place / "held.toml").write_text(PROTOCOL)
    assert [len(item.from_scratch.points) for item in read_results(done / "results.json")[0]] == [3, 2]


def test_the_report_and_the_card_show_it(done, tmp_path):
    assert evaluate_main(["report", str(done.parent), "--output", str(tmp_path)]) == 0
    page, card = (tmp_path / "report.html").read_text(), (done.parent / "model-card.md").read_text()
    for wanted in ("Held out: transfer-held", "Held out: density", "forgotten (mHa)"):
        assert wanted in page
    assert "| density | 2 |" in card
    assert (tmp_path / "transfer-held-file.png").exists()
    (done / "results.json").write_text("{}")
    assert evaluate_main(["report", str(done.parent), "--output", str(tmp_path)]) == 0
    assert "is not a file of protocol results" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("within = 0.5\n", "there are no [[item]] tables"),
        (PROTOCOL + "finetune = 3\n", "[[item]] 2: unknown key finetune; did you mean finetune_steps"),
        (PROTOCOL.replace("within", "widthin"), "unknown key widthin; did you mean within"),
        (PROTOCOL.replace("walkers = 32", "walkers = 1"), "walkers is 1 but must be 2 or more"),
        (PROTOCOL.replace("[defaults]\nwalkers = 32", "[defaults]\nwalkers = 1"), "[[item]] 1: walkers is 1 but must"),
        (PROTOCOL.replace("within = 0.5", "within = 0"), "within is 0.0 but must be above 0"),
        ("error = 0.0\n" + PROTOCOL, "error is 0.0 but must be above 0"),
        (PROTOCOL.replace('data = "other"', 'data = "nowhere"'), "nowhere is neither beside the protocol nor in"),
        (PROTOCOL.replace('data = "other"\n', ""), "[[item]] 2: give either data"),
        (PROTOCOL + 'split = "x"\n', "[[item]] 2: give either data"),
        (PROTOCOL.replace('"file"', '"density"'), "another item has the name 'density' already"),
        (PROTOCOL.replace('"file"', '"../file"'), "name is '../file' but must be a plain folder name"),
        (PROTOCOL.replace("held-out-density", "train"), "the run was trained on split 'train'"),
        (PROTOCOL.replace("held-out-density", "held-out-phase"), "split 'held-out-phase' has no configurations"),
        (PROTOCOL + "number = 4\n", "item file: other has no configurations with N = 4"),
        (PROTOCOL.replace('"heads"', '"head"'), "[[item]] 2: train: invalid enum value 'head'; choose one of 'all'"),
        (PROTOCOL.replace("[defaults]", "[defaults]\nname = 'x'"), "[defaults] holds keys that many items share"),
        ("within = [", "not valid TOML"),
    ],
)
def test_what_is_refused(place, capsys, text, wanted):
    (place / "bad.toml").write_text(text)
    capsys.readouterr()
    assert evaluate_main(["transfer", "runs/tiny", "--protocol", "bad.toml"]) == 2
    message = capsys.readouterr().err
    assert wanted in message
    assert message.count("\n") == 1
    assert not (place / "runs" / "tiny" / "transfer-bad").exists()


def test_wrong_files_and_folders_are_refused(place, done, capsys):
    (place / "taken").mkdir()
    (place / "taken" / "thesis.txt").touch()
    (place / "other.toml").write_text(PROTOCOL.replace("[defaults]\nwalkers = 32", "[defaults]\nwalkers = 16"))
    protocol = ["transfer", "runs/tiny", "--protocol"]
    for command, wanted in (
        ([*protocol, "nowhere.toml"], "nowhere.toml: no such file"),
        ([*protocol, "held.toml", "--output", "taken"], "taken: the folder holds something else"),
        ([*protocol, "other.toml", "--output", str(done)], "other settings or other configurations"),
    ):
        capsys.readouterr()
        assert evaluate_main(command) == 2
        message = capsys.readouterr().err
        assert wanted in message
        assert message.count("\n") == 1


def test_fewer_steps_than_were_done_are_refused(place, done, capsys):
    """After steps 1, 2, 3 the parameters of a step between two evaluations are gone."""
    journal = done / "density" / "from-scratch-2.jsonl"
    kept = journal.read_bytes()
    journal.unlink()
    capsys.readouterr()
    assert evaluate_main(["transfer", "runs/tiny", "--protocol", "held.toml"]) == 2
    assert "the training is at step 3 already, and step 2 was not evaluated" in capsys.readouterr().err
    journal.write_bytes(kept)


def test_one_configuration_is_the_middle_one(place, make_bcc):
    records: list[Record] = item_records(Item("x", data="other"), None, place / "held.toml", "train")
    assert [record.identifier for record in records] == ["bcc-4"]
    assert records[0].split == "train"


def test_several_splits_share_the_configurations(place, make_bcc, tmp_path):
    marked = [dataclasses.replace(make_bcc(i), split="ab"[i % 2]) for i in range(6)]
    dataset = write_dataset(tmp_path / "set", marked)
    item = Item("x", split=("a", "b"), configurations=3)
    records = item_records(item, dataset, place / "held.toml", "train")
    assert [record.identifier for record in records] == ["bcc-2", "bcc-1", "bcc-5"]  # the middle; from end to end
    with pytest.raises(InputError, match="item x: split 'c' has no configurations"):
        item_records(dataclasses.replace(item, split=("a", "c")), dataset, place / "held.toml", "train")


def test_the_default_protocol_asks_for_what_is_held_out(place, make_bcc, tmp_path):
    config = load_config("tiny.toml")
    held = [dataclasses.replace(make_bcc(i), split="held-out-phase") for i in range(2)]
    dataset = write_dataset(tmp_path / "set", [make_bcc(2), *held])
    protocol, (item,) = check_protocol(tomllib.loads(default_protocol(config, dataset)), "default")
    assert (protocol.evaluate, protocol.error) == ("ends", config.transfer.target_error)
    assert protocol.forgetting_configurations == 0
    assert item.splits == ("held-out-phase",)
    assert item.number == 2  # there is none of the eight that the config asks for
    assert (item.walkers, item.together) == (32, 2)
    assert item.finetune_steps == item.scratch_steps == config.transfer.finetune_steps


def test_the_shipped_protocols_can_be_read(request):
    files = sorted((request.config.rootpath / "configs" / "transfer").glob("held_out*.toml"))
    assert files
    for file in files:
        _, items = read_protocol(file)
        for item in items:
            assert item.data is None or (file.parent / item.data).exists()


def test_a_number_that_is_missing_becomes_nan(tmp_path):
    point = {"step": 0, "energy": None, "error": 0.1}
    item = {
        "name": "x",
        "configurations": ["a"],
        "numbers": [2],
        "densities": [1.4],
        "phases": ["bcc"],
        "train": "all",
        "walkers": 2,
        "within": 0.1,
        "zero_shot": point,
        "limit": {"step": 2, "energy": -0.5, "error": 0.1},
        "fine_tuned": {"points": [dict(point)], "seconds_per_step": 1.0},
        "from_scratch": {"points": [{"step": 1, "energy": -0.4, "error": 0.1}], "seconds_per_step": 1.0},
        "forgetting": None,
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"items": [item], "provenance": {}}))
    (read,), _ = item_result.read_results(path)
    assert np.isnan(read.zero_shot.energy)
    assert read.tuned_reached.step is None
    item_result.write_results(path, [read], {})
    assert json.loads(path.read_text())["items"][0]["zero_shot"]["energy"] is None
