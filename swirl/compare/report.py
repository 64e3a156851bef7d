"""`report.html` of a comparison: one file that opens offline, made from `results.json` and the kept cells.

Tables, curves over cost and over rounds, what checkpoints wrote for held-out transitions as coloured differences, the
health of the inferred actions, alarms, and what ran where.
"""

import difflib
import html
import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swirl import images, metrics, sheets
from swirl.compare import figures, provenance, reading, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 88em; margin: 2em auto; padding: 0 1em; color: #222 }
h2 { margin-top: 2em; border-bottom: 2px solid #ddd } h2 code, h3 code { font-size: 1em }
p { max-width: 60em } table { border-collapse: collapse; margin: 1em 0; font-size: 13px }
td, th { padding: .25em .7em; text-align: left; vertical-align: top } td { white-space: nowrap }
td.long { white-space: normal; min-width: 14em } td small { color: #777 } section { overflow-x: auto }
tr { border-bottom: 1px solid #ddd } pre { white-space: pre-wrap; background: #f6f6f6; padding: .6em; margin: 0 }
summary { font-size: 1.17em; font-weight: bold; cursor: pointer; margin: 1em 0 }
.sample { margin: 1.2em 0 2em } .three { display: grid; grid-template-columns: repeat(3, 1fr); gap: .2em .5em }
.three { font-size: 12px; grid-auto-flow: column; grid-template-rows: auto 1fr } .three b { color: #555 }
svg { max-width: 100%; height: auto } .right { color: #1a7f37 } .wrong { color: #b42318 }
ins { background: #c7efcf; text-decoration: none } del { background: #fbd0d0 } del + ins { margin-left: .25em }
"""
HEALTH = (
    "action_unique_share",
    "action_length_mean",
    "action_entropy",
    "action_top_share",
    "action_nmi",
    "action_perplexity_ratio",
)
LONG = 60
"""Characters from which a cell of a table may break its line."""
KINDS = {
    "drawn": "drawn at random",
    "worst": "among the worst",
    "false change": "a false change: nothing changed here",
}
LEGEND = """<p>What the last checkpoint wrote for test transitions, of each method in its first seed. Of three columns
the second is marked against the first, and the third against the second: <ins>added</ins>, <del>gone</del>. Where a
prediction has no marks, it is as recorded. Of the changed transitions some are drawn at random and some are of the
worst; a false change is a prediction that changes the state where the recording does not.</p>"""
OVER_COST = """<p>Mean over seeds, linear between two phases; a seed that ended early counts on with where it ended.
Dotted: what <code>{}</code> spends, mean over seeds, where the tables read the others. Dashed: the baseline, which
costs nothing.</p>"""


def page(results: dict[str, Any], files: dict[str, reading.Cells]) -> str:
    """The report.

    Args:
        results: What `results.json` holds.
        files: The kept cells, by what was varied, method and seed.
    """
    parts = ["<h1>Comparison</h1>", f"<p>{_marked_up(tables.told(results))}</p>"]
    for title, lines in tables.tables(results).items():
        parts += [f"<h2>{_marked_up(title)}</h2>", _table(lines)]
    if results["vary"]:
        parts += [f"<h2>Test metrics over {_text(results['vary'])}</h2>", _svg(figures.varied(results))]
    reference = results["reference"]
    for at, cells in files.items():
        here = _text(f", {results['vary']} = {at}" if results["vary"] else "")
        if reference in cells:
            over_cost = figures.over_cost(cells, reference)
            parts += [f"<h2>Test metrics over cost{here}</h2>", OVER_COST.format(_text(reference)), _svg(over_cost)]
        by_round = figures.by_round(cells)
        parts += [f"<h2>Test metrics by round{here}</h2>", _svg(by_round)] if by_round else []
        parts += [f"<h2>Predictions{here}</h2>", LEGEND, *_samples(cells)]
        health = figures.health(cells)
        parts += [f"<h2>Inferred actions{here}</h2>", _svg(health) if health else "", _table(_health(cells))]
        parts += [f"<h2>Alarms{here}</h2>", _alarms(cells)]
    parts += ["<h2>What ran</h2>", _table(provenance.table(files))]
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Comparison</title><style>{STYLE}</style>'
    return f"{head}</head><body>{''.join(parts)}</body></html>\n"


def _text(text: object) -> str:
    return html.escape(str(text))


def _marked_up(text: str) -> str:
    """Text with names between backticks, as HTML."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", _text(text))


def _table(lines: Sequence[Sequence[str]]) -> str:
    if len(lines) < 2:
        return "<p>none</p>"
    head, *body = tables.filled(lines)
    rows = ["".join(f"<th>{_marked_up(cell)}</th>" for cell in head), *("".join(map(_cell, row)) for row in body)]
    return f"<section><table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table></section>"


def _cell(text: str) -> str:
    """A cell of a table; an interval steps back behind its value."""
    long = ' class="long"' * (len(text) > LONG)
    shown = re.sub(r"(\[[^\]]*\])", r"<small>\1</small>", _marked_up(text))
    return f"<td{long}>{shown}</td>"


def _svg(figure: "Figure") -> str:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg")
    return re.sub(r"^.*?(?=<svg)", "", drawn.getvalue(), flags=re.DOTALL)


def _samples(cells: reading.Cells) -> Iterator[str]:
    """State, recorded next state and prediction of each method in its first seed; the first method's lie open."""
    for i, (method, by_seed) in enumerate(cells.items()):
        seed, cell = next(iter(by_seed.items()))
        shown = "".join(_sample(sample) for sample in cell["samples"])
        yield f"<details{' open' * (i == 0)}><summary>{_text(method)}, seed {seed}</summary>{shown}</details>"


def _sample(sample: dict[str, Any]) -> str:
    """One transition: what happened, and what a model wrote of it."""
    state, after, wrote, kind = (sample[key] for key in ("state", "next_state", "prediction", "kind"))
    if sample["role"] == "forward":
        right = metrics.exact_match(wrote, after)
        score = "" if right or kind == "false change" else f", changed facts F1 {sample['score']:g}"
        what = f"Next state after <code>{_text(sample['action'])}</code>: {_verdict(right)}{score}"
        last = ("predicted, against the recorded one", _marked(after, wrote) if wrote.strip() else "(nothing)")
    else:
        right = bool(sample["score"])
        what = f"Action between two states: {_verdict(right)}"
        last = ("action", f"recorded: {_text(sample['action'])}\ninferred: {_text(wrote) or '(nothing)'}")
    if "frames" in sample:
        told = "" if sample["role"] == "forward" else f"<pre>{last[1]}</pre>"
        return f"<div class=sample><p>{what} ({KINDS[kind]})</p>{_picture(sample)}{told}</div>"
    columns = [("state", _text(state)), ("recorded next state, against the state", _marked(state, after)), last]
    shown = "".join(f"<b>{head}</b><pre>{body}</pre>" for head, body in columns)
    return f"<div class=sample><p>{what} ({KINDS[kind]})</p><div class=three>{shown}</div></div>"


def _picture(sample: dict[str, Any]) -> str:
    """The frames of one transition: a line of a contact sheet, or where the action is asked two of a film strip."""
    frames = {name: one and images.open_image(one) for name, one in sample["frames"].items()}
    before, after = frames["state"], frames["next_state"]
    if sample["role"] == "forward":
        drawn = sheets.contact_sheet([sheets.Row(before, sample["action"], after, frames["prediction"])])
    else:
        drawn = sheets.film_strip({"recorded": [before, after]}, [sample["action"]])
    return f'<img alt="" src="{images.data_uri(drawn)}">'


def _verdict(right: bool) -> str:
    return '<b class="right">as recorded</b>' if right else '<b class="wrong">not as recorded</b>'


def _marked(before: str, after: str) -> str:
    """The second text, with what it adds to the first and what it lacks of it marked."""
    one, two = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (before, after))
    marked = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        gone, new = _text("".join(one[a:b])), _text("".join(two[c:d]))
        marked += [new] if kind == "equal" else [f"<del>{gone}</del>" * bool(gone), f"<ins>{new}</ins>" * bool(new)]
    return "".join(marked)


def _health(cells: reading.Cells) -> list[list[str]]:
    """Signs of collapsed actions by method and phase, mean over seeds."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for method, by_seed in cells.items():
        for cell in by_seed.values():
            for row in cell["rows"]:
                if row["metric"] in HEALTH and row["role"] == "inverse":
                    found.setdefault((method, row["phase"]), {}).setdefault(row["metric"], []).append(row["value"])
    lines = [["method", "phase", *HEALTH]]
    return lines + [
        [*key, *(f"{np.mean(values[name]):.3f}" if name in values else "" for name in HEALTH)]
        for key, values in found.items()
    ]


def _alarms(cells: reading.Cells) -> str:
    lines = [
        f"<li>{_text(f'{method}, seed {seed}: {alarm}')}</li>"
        for method, by_seed in cells.items()
        for seed, cell in by_seed.items()
        for alarm in cell["alarms"]
    ]
    return f"<ul>{''.join(lines)}</ul>" if lines else "<p>none</p>"
