"""The report: what is read, what is shown, and how it behaves in a browser without a network."""

import dataclasses
import errno
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from fnqs_eval.commands import main as evaluate_main
from fnqs_eval.energies.table import EnergyResult, write_json
from fnqs_eval.plots import running_mean, running_median
from fnqs_eval.report import report
from fnqs_eval.report.report import write_report
from fnqs_eval.report.report_data import read_run
from fnqs_eval.report.report_pictures import pictures_of
from fnqs_eval.transfer.item_result import ItemResult, write_results
from fnqs_eval.transfer.learning_curve import Curve, Point
from fnqs_train.checkpointing.saving import Checkpoints
from fnqs_train.config import load_config, save_config
from fnqs_train.loading import params_template
from fnqs_train.models.shipped import MODELS
from fnqs_train.monitoring.metrics import read_metrics
from fnqs_train.monitoring.metrics_row import column

CONFIG = """name = "try"
steps = 40
data.recipe = "absent.toml"
log.wandb = "disabled"
model = { features = 8, vectors = 4, amplitudes = 4, radial_functions = 4, proton_rounds = 1 }
"""
PHASES = ("bcc", "fcc", "<b>liquid</b> & more")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def result(i, **changes):
    base = EnergyResult(
        identifier=f"c{i}",
        number=8,
        density_parameter=1.2 + 0.1 * i,
        phase=PHASES[i % 3],
        twist=(0.0, 0.0, 0.0),
        energy_per_atom=-0.4 - 0.01 * i,
        error_per_atom=0.001,
        variance_per_atom=0.02 * (1 + i),
        acceptance=0.5,
        v_score=0.1,
        label_energy_per_atom=-0.41 - 0.01 * i,
        label_convention="method x",
        reliability=("good", "fair", "poor")[i % 3],
        distance=1.5,
        relative_energy=-0.01 * i,
        relative_error=0.001,
    )
    return dataclasses.replace(base, **changes)


def held_out():
    """Results of a protocol: two configurations, fine-tuned and from scratch."""
    point = {step: Point(step, energy, 0.002) for step, energy in ((0, -0.45), (40, -0.52))}
    return ItemResult(
        name="held-out",
        configurations=("h0", "h1"),
        numbers=(8,),
        densities=(1.3, 1.4),
        phases=("hcp",),
        train="all",
        walkers=64,
        within=5e-4,
        zero_shot=point[0],
        limit=point[40],
        fine_tuned=Curve((point[0], point[40]), 0.5),
        from_scratch=Curve((Point(40, -0.40, 0.002),), 0.5),
        single=tuple(result(i, identifier=f"h{i}", phase="hcp", label_energy_per_atom=None) for i in (0, 1)),
    )


def write_metrics(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "try.toml").write_text(CONFIG)
    config = load_config("try.toml")
    folder = tmp_path / "runs" / "try"
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params_template(config))
    meta = {"data_fingerprint": "x", "visited": 1234, "configurations": 5000, "parent": ""}
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(40, params, {"count": np.zeros(1)}, {"n002": np.zeros(1)}, meta)
    save_config(config, folder)
    rows = read_metrics(MODELS / "foundation")[:40]  # of a real run
    rows[3]["non_finite"] = ["bad-one"]
    write_metrics(folder, rows)
    results = [result(i) for i in range(9)]
    results.append(result(9, energy_per_atom=float("nan"), flags=["64 of 64 walkers had no energy"]))
    results[2] = result(2, flags=["stopped before the error bar reached 1 mHa per atom"])
    provenance = {"step": 40, "settings": {"walkers": 64, "seed": 3, "target_error": 0.001}, "versions": {"jax": "1"}}
    write_json(folder / "energies-a.json", results, provenance)
    (folder / "transfer").mkdir()
    write_results(folder / "transfer" / "results.json", [held_out()], provenance)
    return folder


class Elements(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_the_page_has_everything_and_loads_nothing(run, tmp_path, capsys):
    assert evaluate_main(["report", str(run), "--output", "out"]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    elements = Elements(page)
    identifiers = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    links = [attributes["href"] for tag, attributes in elements.tags if tag == "a"]
    assert len(links) >= 8
    assert all(link[1:] in identifiers for link in links)
    assert not [a for _, a in elements.tags if re.match("https?:|//", a.get("src") or a.get("href") or "")]
    assert "@import" not in page
    assert re.search(r'name="viewport" content="width=device-width', page)
    assert "<b>liquid</b>" not in page  # names of a file are text, never markup
    assert "-0.4800(10)" in elements.text
    for wanted in ("bad-one (step 40)", "c9 has no energy", "c2 stopped before", "method x", "64 walkers, seed 3"):
        assert wanted in page
    assert len(page) < 1_000_000
    names = {"training", "energies", "variance", "transfer-held-out", "parity"}
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == names
    assert [tag for tag, _ in elements.tags].count("svg") == 2 * len(names)
    assert "report.html" in capsys.readouterr().out


def test_the_pictures_show_the_numbers_of_the_run(run):
    read = read_run(run)
    drawn = {picture.name: picture.draw(Figure()) for picture in pictures_of([read])}
    points = {name: [(x, y) for _, x, y, _ in tips] for name, tips in drawn.items()}
    # Nine finite energies, one that is not, and the two of the protocol's items.
    rows = [result(i) for i in range(9)] + list(held_out().single)
    assert sorted(points["energies"]) == sorted((row.density_parameter, row.energy_per_atom) for row in rows)
    assert sorted(points["variance"]) == sorted((row.density_parameter, row.variance_per_atom) for row in rows)
    labelled = [row for row in rows if row.label_energy_per_atom is not None]
    assert sorted(points["parity"]) == sorted((row.label_energy_per_atom, row.energy_per_atom) for row in labelled)
    energies, variances = points["training"][:40], points["training"][40:]
    np.testing.assert_allclose([y for _, y in energies], running_mean(column(read.metrics, "energy_per_atom"))[0])
    np.testing.assert_allclose([y for _, y in variances], running_median(column(read.metrics, "variance_per_atom"))[0])
    assert [x for x, _ in energies] == [x for x, _ in variances] == [row["step"] for row in read.metrics]


def test_the_model_card_says_what_was_measured(run, tmp_path):
    write_report([run], tmp_path / "out")
    card = (run / "model-card.md").read_text()
    for heading in ("Model and data", "Cost", "Accuracy by phase and density", "Known limits", "How to cite"):
        assert f"## {heading}" in card
    for wanted in ("5,000, of which 1,234", "| bcc | 1.20 to 1.20 | 1 | 1 | 0.020 | +10.0 |", "bad-one", "40 steps"):
        assert wanted in card
    # Zero-shot 50(3) mHa below the end from scratch: 18 error bars; the fine-tuned energy 70(3) below zero-shot: 25.
    assert "lies 50(3) mHa per atom below 40 steps from scratch, 18 error bars" in card
    assert "lower its energy by 70(3) mHa per atom, 25 error bars" in card
    assert str(tmp_path) not in card


def test_runs_with_little_in_them_still_make_a_page(run, tmp_path):
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "transfer")
    (run / "energies-a.json").write_text("{}")
    (run / "metrics.jsonl").write_text("")
    write_report([run], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "no checkpoint here" in page
    assert "energies-a.json is not a file of energies" in page
    assert "No energies were evaluated yet" in (run / "model-card.md").read_text()


def test_the_card_of_a_read_only_run_lies_beside_the_report(run, tmp_path, capsys, monkeypatch):
    """The folder of the run is not ours, or on a disk that cannot be written."""
    replace = report.write_text_atomic

    def refuse(path, text):
        if path.is_relative_to(run):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        replace(path, text)

    monkeypatch.setattr(report, "write_text_atomic", refuse)
    assert evaluate_main(["report", str(run), "--output", "out"]) == 0
    assert "out/try-model-card.md" in capsys.readouterr().out
    assert (tmp_path / "out" / "try-model-card.md").read_text().startswith("# try: ")
    assert not (run / "model-card.md").exists()
    assert evaluate_main(["report", str(run)]) == 2  # in the run itself, where nothing can be written
    assert "read-only file system; choose a folder that can be written" in capsys.readouterr().err


def test_what_is_refused(run, capsys):
    for arguments, wanted in (
        (["report", "nowhere"], "nowhere: there is no such run folder"),
        (["report", str(run), str(run)], "two runs of one name"),
        (["report"], "RUN"),
    ):
        capsys.readouterr()
        assert evaluate_main(arguments) == 2
        message = capsys.readouterr().err
        assert wanted in message
        assert message.count("\n") == 1


def in_chromium(page, folder, *options):
    """Load a page without a network: its DOM after scripts have run, and all that was logged."""
    command = [
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={folder}", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"),
        *options,
        page.resolve().as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


TRIAL = """<script>window.addEventListener('load',()=>{
const hit=[...document.querySelectorAll('.hit')].find(c=>c.getBoundingClientRect().width>0);
hit.dispatchEvent(new PointerEvent('pointerover',{bubbles:true}));
const said=document.getElementById('tip').textContent===hit.dataset.tip;
const table=document.getElementById('energies'),head=table.querySelectorAll('th button');
const rs=()=>[...table.tBodies[0].rows].map(r=>parseFloat(r.cells[2].textContent));
head[2].click();const up=rs().every((x,i,a)=>!i||a[i-1]<=x);head[2].click();
const down=rs().every((x,i,a)=>!i||a[i-1]>=x);
const box=document.querySelector('input.filter');box.value='fcc';box.dispatchEvent(new Event('input'));
const shown=[...table.tBodies[0].rows].filter(r=>!r.hidden);
const svgs=[...document.querySelectorAll('figure svg')].filter(s=>s.getBoundingClientRect().width>0);
const fits=document.documentElement.scrollWidth<=document.documentElement.clientWidth;
document.body.dataset.trial=JSON.stringify({said,up,down,shown:shown.length,svgs:svgs.length,fits,
 width:innerWidth,paths:Math.min(...svgs.map(s=>s.querySelectorAll('path').length)),
 links:[...document.querySelectorAll('nav a')].every(a=>document.getElementById(a.hash.slice(1)))})})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [1280, 500])
def test_in_a_browser(run, tmp_path, width):
    write_report([run], tmp_path / "out")
    plain = tmp_path / "out" / "report.html"
    _, log = in_chromium(plain, tmp_path / "user1", f"--window-size={width},3000", "--dump-dom")
    assert "CONSOLE" not in log
    trial = tmp_path / "trial.html"
    trial.write_text(plain.read_text().replace("</body>", TRIAL + "</body>"))
    dom, log = in_chromium(trial, tmp_path / "user2", f"--window-size={width},3000", "--dump-dom")
    assert "CONSOLE" not in log
    found = json.loads(dict(Elements(dom).tags)["body"]["data-trial"])
    assert found.pop("paths") > 5
    assert found.pop("width") == width
    assert found == {"said": True, "up": True, "down": True, "shown": 3, "svgs": 5, "fits": True, "links": True}
    # The check for messages sees them: a page with an error in a script is told apart.
    broken = tmp_path / "broken.html"
    broken.write_text(plain.read_text().replace("<script>", "<script>nothing.here();"))
    assert "CONSOLE" in in_chromium(broken, tmp_path / "user3", "--dump-dom")[1]
