"""A report as one HTML page that needs nothing else: no network, no fonts, no libraries."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from fnqs.cli.notation import with_error
from fnqs_eval.energies.table import EnergyResult, format_twist
from fnqs_eval.report.report_data import RunReport
from fnqs_eval.report.report_pictures import NARROW, WIDE, Picture, to_svg
from fnqs_eval.transfer.conclusion import conclusions
from fnqs_eval.transfer.item_result import HEADINGS, RESULTS_NAME, ItemResult

STYLE = """
:root{--bg:#fbfaf8;--card:#fff;--ink:#1d1f23;--soft:#646a73;--line:#e3e1dc;--accent:#0072b2;--good:#0a7d57;--fair:#96620a;
--poor:#b5382a;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--bg:#14161a;--card:#1c1f25;--ink:#e6e7ea;--soft:#9aa1ab;--line:#30343c;
--accent:#56b4e9;--good:#4cc79a;--fair:#e0a83f;--poor:#f0806f}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:3.5rem;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main,footer{max-width:68rem;margin:0 auto;padding:0 1rem}
header{padding-top:2rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.2rem;margin:0 0 .6rem}
p{margin:.4rem 0}
.soft,figcaption,footer{color:var(--soft);font-size:.88rem}
nav{position:sticky;top:0;z-index:2;background:var(--bg);border-bottom:1px solid var(--line)}
nav div{max-width:68rem;margin:0 auto;padding:.6rem 1rem;display:flex;gap:1.1rem;overflow-x:auto;white-space:nowrap}
a{color:var(--accent);text-decoration:none}
a:hover{text-decoration:underline}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1.1rem;margin:1rem 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:1rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.7rem .9rem}
.tile b{display:block;font-size:1.35rem;line-height:1.3;font-variant-numeric:tabular-nums}
figure{margin:0}
figure svg{width:100%;height:auto;display:block}
figure svg text{font-family:inherit;fill:currentColor}
.narrow{display:none}
@media(max-width:40rem){.wide{display:none}.narrow{display:block}section{padding:.8rem}h1{font-size:1.35rem}
.tile b{font-size:1.15rem}}
.hit{fill:transparent;cursor:crosshair}
.hit:hover,.hit.on{fill:var(--accent);fill-opacity:.35}
#tip{position:absolute;display:none;max-width:18rem;padding:.35rem .6rem;border-radius:6px;background:var(--ink);
color:var(--bg);font-size:.82rem;line-height:1.35;pointer-events:none;z-index:3;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .7rem .35rem 0;border-bottom:1px solid var(--line);white-space:nowrap}
th.n,td.n{text-align:right}
th button{all:unset;cursor:pointer;color:var(--soft);font-weight:600}
th button:focus-visible{outline:2px solid var(--accent)}
td.src{color:var(--soft);font-size:.82rem}
.good{color:var(--good)}.fair{color:var(--fair)}.poor,.fail{color:var(--poor)}
input{font:inherit;padding:.3rem .6rem;margin-bottom:.6rem;width:100%;max-width:20rem;border:1px solid var(--line);
border-radius:6px;background:var(--bg);color:var(--ink)}
code{font-size:.86em;overflow-wrap:anywhere}
ul{padding-left:1.2rem;margin:.3rem 0}
"""

SCRIPT = """
const tip=document.getElementById('tip');let on=null;
function show(c){if(on)on.classList.remove('on');on=c;if(!c){tip.style.display='none';return}
c.classList.add('on');tip.textContent=c.dataset.tip;tip.style.display='block';
const r=c.getBoundingClientRect(),w=tip.offsetWidth,v=document.documentElement.clientWidth;
tip.style.left=Math.max(6,Math.min(r.left+r.width/2-w/2,v-w-6))+scrollX+'px';
tip.style.top=r.top+scrollY-tip.offsetHeight-6+'px'}
for(const e of ['pointerover','click'])document.addEventListener(e,
 x=>show(x.target.classList&&x.target.classList.contains('hit')?x.target:null));
for(const t of document.querySelectorAll('table.sort')){const body=t.tBodies[0];
 t.querySelectorAll('th button').forEach((b,i)=>b.addEventListener('click',()=>{
 const up=b.dataset.up!=='1';t.querySelectorAll('th button').forEach(o=>{o.dataset.up='';o.parentNode.ariaSort='none'});
 b.dataset.up=up?'1':'0';b.parentNode.ariaSort=up?'ascending':'descending';
 const key=r=>{const s=r.cells[i].dataset.v??r.cells[i].textContent,n=parseFloat(s);return isNaN(n)?s:n};
 [...body.rows].sort((p,q)=>{const a=key(p),c=key(q),
 d=typeof a==='number'&&typeof c==='number'?a-c:String(a).localeCompare(String(c));return up?d:-d})
 .forEach(r=>body.append(r))}))}
for(const f of document.querySelectorAll('input.filter'))f.addEventListener('input',()=>{const w=f.value.toLowerCase();
 for(const r of document.getElementById(f.dataset.table).tBodies[0].rows)
 r.hidden=!r.textContent.toLowerCase().includes(w)});
"""


def page(reports: Sequence[RunReport], pictures: Sequence[Picture]) -> str:
    """Put the whole page together."""
    names = ", ".join(report.folder.name for report in reports)
    parts = [(f"p-{picture.name}", picture.title, _figure(picture)) for picture in pictures]
    parts.insert(0, ("runs", "Runs", _runs(reports)))
    for report in reports:
        for name, items in report.protocols.items():
            parts.append((f"protocol-{report.folder.name}-{name}", f"Held out: {name}", _protocol(report, name, items)))
    rows = [(report, name, row) for report in reports for name, row in report.all_energies()]
    if rows:
        parts.append(("table", "All energies", _energies(rows)))
    parts.append(("failures", "Failures", _failures(reports)))
    parts.append(("provenance", "Where the numbers come from", _provenance(reports)))
    links = "".join(f'<a href="#{_id(key)}">{_text(title)}</a>' for key, title, _ in parts)
    body = "".join(
        f'<section id="{_id(key)}"><h2>{_text(title)}</h2>{content}</section>' for key, title, content in parts
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>fnqs: {_text(names)}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>Dense hydrogen: {_text(names)}</h1><p class=soft>Energies in Ha per atom with one standard error "
        "in the last digits, r_s in bohr; variational, static protons, unpolarised, the same twist for both spins.</p>"
        f"{_tiles(reports)}</header><nav><div>{links}</div></nav><main>{body}</main>"
        f"<footer><p>Written by fnqs {_text(version('fnqs'))}. This page is one file and loads nothing.</p></footer>"
        f'<div id="tip" role="status"></div><script>{SCRIPT}</script></body></html>\n'
    )


def _tiles(reports: Sequence[RunReport]) -> str:
    rows = [row for report in reports for _, row in report.all_energies()]
    tiles = [(str(len(reports)), "run" + "s" * (len(reports) > 1))]
    seen = [int(report.meta["visited"]) for report in reports if report.meta.get("visited")]
    if seen:
        tiles.append((f"{max(seen):,}", "configurations trained on"))
    tiles.append((str(len(rows)), "energies evaluated"))
    if rows:
        errors = [row.error_per_atom for row in rows if math.isfinite(row.error_per_atom)]
        tiles.append((f"{1e3 * float(np.median(errors)):.2g} mHa" if errors else "none", "median error bar per atom"))
    failures = sum(len(report.failures) for report in reports)
    tiles.append((str(failures), "failures listed"))
    return '<div class="tiles">' + "".join(f'<div class="tile"><b>{a}</b>{b}</div>' for a, b in tiles) + "</div>"


def _figure(picture: Picture) -> str:
    return (
        f'<figure><div class="wide">{to_svg(picture, WIDE)}</div><div class="narrow">{to_svg(picture, NARROW)}</div>'
        f"<figcaption>{_text(picture.caption)}</figcaption></figure>"
    )


def _runs(reports: Sequence[RunReport]) -> str:
    rows = []
    for report in reports:
        config, meta = report.config, report.meta
        rows.append(
            [
                _text(report.folder.name),
                str(report.step) if report.step is not None else '<span class="fail">no checkpoint</span>',
                _text(meta.get("parent") or "drawn at random"),
                f"{meta['visited']:,} of {meta['configurations']:,}" if "configurations" in meta else "unknown",
                f"{config.sampling.configurations_per_step} x {config.sampling.walkers_per_configuration}",
                _number(report.metrics[-1].get("energy_per_atom"), 4) if report.metrics else "",
                "" if report.seconds is None else f"{report.seconds:,.0f}",
            ]
        )
    headings = ["run", "steps", "started from", "configurations seen", "configurations x walkers", "last E/N (Ha)"]
    return _table([*headings, "seconds"], rows, numeric=(1, 5, 6))


def _protocol(report: RunReport, name: str, items: Sequence[ItemResult]) -> str:
    text = _table(HEADINGS, [[_text(cell) for cell in item.row()] for item in items], numeric=range(5, len(HEADINGS)))
    within = ", ".join(sorted({f"{1e3 * item.within:g}" for item in items}))
    text += "".join(f"<p>{_text(sentence)}</p>" for sentence in conclusions(items))
    return text + (
        f"<p class=soft>A training is there when its separately evaluated energy stays less than {within} mHa per atom "
        "above the limit, the energy at the end of fine-tuning, at all later evaluated steps (1, 2, 5, 10 ...); in "
        "brackets the same with one standard error against it, and for ratios the lower bound that follows. Seconds "
        "are steps times the median time of one, without compilation. Forgotten: change of E/N on configurations of "
        f"the training set. From {_text(report.folder.name)}/{_text(name)}/{RESULTS_NAME}.</p>"
    )


def _energies(rows: Sequence[tuple[RunReport, str, EnergyResult]]) -> str:
    labelled = any(row.label_energy_per_atom is not None for _, _, row in rows)
    headings = ["configuration", "N", "r_s", "phase", "twist", "E/N (Ha)", "E - first (mHa)", "variance/N", "distance"]
    headings += ["trust"] + ["minus label (mHa)"] * labelled + ["from"]
    body = []
    for report, name, row in rows:
        relative = "" if row.relative_energy is None else f"{1e3 * row.relative_energy:.1f}"
        trust = row.reliability or ""
        cells = [
            _text(row.identifier),
            str(row.number),
            f"{row.density_parameter:.3f}",
            _text(row.phase),
            _text(format_twist(row.twist)),
            _text(with_error(row.energy_per_atom, row.error_per_atom)),
            relative,
            _number(row.variance_per_atom, 3),
            _number(row.distance, 1),
            f'<span class="{trust}">{trust}</span>',
        ]
        if labelled:
            label = row.label_energy_per_atom
            cells.append("" if label is None else f"{1e3 * (row.energy_per_atom - label):.1f}")
        body.append([*cells, f'<span class="src">{_text(report.folder.name)}/{_text(name)}</span>'])
    search = '<input class="filter" data-table="energies" placeholder="filter: fcc, poor, 1.5 ..." aria-label="filter">'
    return search + _table(headings, body, numeric=(1, 2, 5, 6, 7, 8), identifier="energies")


def _failures(reports: Sequence[RunReport]) -> str:
    items = [(report.folder.name, text) for report in reports for text in report.failures]
    if not items:
        return "<p>None: every checkpoint is valid, no number was lost, every error bar was reached.</p>"
    return "<ul>" + "".join(f"<li><b>{_text(name)}</b>: {_text(text)}</li>" for name, text in items) + "</ul>"


def _provenance(reports: Sequence[RunReport]) -> str:
    rows = []
    for report in reports:
        for source in report.sources:
            told = report.provenance.get(source.name, {})
            settings = told.get("settings", {})
            how = [f"step {told['step']}"] if "step" in told else []
            how += [f"{settings['walkers']} walkers, seed {settings['seed']}"] if settings else []
            how += [f"to {1e3 * settings['target_error']:g} mHa per atom"] if "target_error" in settings else []
            how += [f"twists {told['twists']}"] if "twists" in told else []
            how += [f"{name} {number}" for name, number in told.get("versions", {}).items()]
            name = f"{report.folder.name}/{source.name}"
            rows.append([f"<code>{_text(name)}</code>", f"<code>{source.digest}</code>", _text(", ".join(how))])
    return _table(["file", "blake2b", "how it was made"], rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numeric=(), identifier: str = "") -> str:
    """Make a sortable table; cells are HTML."""
    kind = ["n" if i in numeric else "" for i in range(len(headings))]
    head = "".join(
        f'<th class="{k}"><button type="button">{_text(h)}</button></th>' for k, h in zip(kind, headings, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f'<td class="{k}">{cell}</td>' for k, cell in zip(kind, row, strict=True)) + "</tr>"
        for row in rows
    )
    name = f' id="{identifier}"' if identifier else ""
    table = f'<table class="sort"{name}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{decimals}f}"


def _id(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in text)


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
