"""`report.html` of a comparison: one file that opens offline, made from `results.json` and the kept cells.

Tables, curves over cost and over rounds, what checkpoints wrote for held-out transitions as coloured differences, the
health of the inferred actions, alarms, and what ran where.
"""

import difflib
import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swirl.compare import figures, reading, summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 100em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px } td, th { padding: .25em .7em; text-align: left }
td { white-space: nowrap } section { overflow-x: auto }
tr { border-bottom: 1px solid #ddd } pre { white-space: pre-wrap; background: #f6f6f6; padding: .6em; margin: 0 }
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: .5em; font-size: 12px } svg { max-width: 100% }
ins { background: #c7efcf; text-decoration: none } del { background: #fbd0d0; text-decoration: none }
"""
HEALTH = (
    "action_unique_share",
    "action_length_mean",
    "action_entropy",
    "action_top_share",
    "action_nmi",
    "action_perplexity_ratio",
)


def page(results: dict[str, Any], files: dict[str, reading.Cells]) -> str:
    """The report.

    Args:
        results: What `results.json` holds.
        files: The kept cells, by what was varied, method and seed.
    """
    parts = ["<h1>Comparison</h1>", f"<p>{_plain(summary.told(results))}</p>"]
    for title, lines in summary.tables(results).items():
        parts += [f"<h2>{_text(title)}</h2>", _table(lines)]
    if results["vary"]:
        parts += [f"<h2>Test metrics over {_text(results['vary'])}</h2>", _svg(figures.varied(results))]
    for at, cells in files.items():
        here = _text(f", {results['vary']} = {at}" if results["vary"] else "")
        parts += [f"<h2>Test metrics over cost{here}</h2>", _svg(figures.over_cost(cells))]
        by_round = figures.by_round(cells)
        parts += [f"<h2>Test metrics by round{here}</h2>", _svg(by_round)] if by_round else []
        parts += [f"<h2>Predictions{here}</h2>", *_samples(cells)]
        health = figures.health(cells)
        parts += [f"<h2>Inferred actions{here}</h2>", _svg(health) if health else "", _table(_health(cells))]
        parts += [f"<h2>Alarms{here}</h2>", _alarms(cells)]
    parts += ["<h2>What ran</h2>", _table(_provenance(files))]
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Comparison</title><style>{STYLE}</style>'
    return f"{head}</head><body>{''.join(parts)}</body></html>\n"


def _text(text: object) -> str:
    return html.escape(str(text))


def _table(lines: Sequence[Sequence[object]]) -> str:
    if len(lines) < 2:
        return "<p>none</p>"
    rows = [("th", lines[0]), *(("td", line) for line in lines[1:])]
    cells = ["<tr>" + "".join(f"<{kind}>{_plain(cell)}</{kind}>" for cell in row) + "</tr>" for kind, row in rows]
    return f"<section><table>{''.join(cells)}</table></section>"


def _plain(cell: object) -> str:
    """A cell of a Markdown table, for HTML."""
    return _text(cell).replace("`", "")


def _svg(figure: "Figure") -> str:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg")
    return re.sub(r"^.*?(?=<svg)", "", drawn.getvalue(), flags=re.DOTALL)


def _samples(cells: reading.Cells) -> Iterable[str]:
    """State, recorded next state and prediction of each method in its first seed."""
    for method, by_seed in cells.items():
        yield f"<h3>{_text(method)}</h3>"
        for sample in next(iter(by_seed.values()))["samples"]:
            if sample["role"] == "forward":
                head = f"next state after {sample['action']!r}, {sample['kind']}, changed facts F1 {sample['score']}"
                last = _marked(sample["next_state"], sample["prediction"])
            else:
                head = f"action, {sample['kind']}: recorded {sample['action']!r}, inferred {sample['prediction']!r}"
                last = ""
            texts = [_text(sample["state"]), _marked(sample["state"], sample["next_state"]), last]
            shown = "".join(f"<pre>{text}</pre>" for text in texts if text)
            yield f"<p>{_text(head)}</p><div class=three>{shown}</div>"


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


def _provenance(files: dict[str, reading.Cells]) -> list[list[str]]:
    """Each run's commit, machine and versions, equal ones together."""
    ran: dict[tuple[str, str, str], list[str]] = {}
    for at, cells in files.items():
        for method, by_seed in cells.items():
            for seed, cell in by_seed.items():
                machine, versions = (", ".join(f"{k} {v}" for k, v in cell[x].items()) for x in ("machine", "versions"))
                named = " ".join(filter(None, [method, at, f"seed {seed}"]))
                ran.setdefault((cell["commit"], machine, versions), []).append(named)
    return [["commit", "machine", "versions", "runs"], *([*facts, ", ".join(runs)] for facts, runs in ran.items())]
