"""What every world's recordings are like, and that collecting and importing stream: into docs/worlds.md.

    python benchmarks/recordings.py worlds                     every world that can run here
    python benchmarks/recordings.py worlds --only web sokoban
    python benchmarks/recordings.py streaming                  100,000 and a million transitions
    python benchmarks/recordings.py page                       only the page, from the kept files

Results are kept in benchmarks/results/recordings/, a file each. Seconds are wall seconds, one process at a time.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swirl import data, worlds
from swirl.data import check

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "worlds.md"
KEPT = ROOT / "benchmarks" / "results" / "recordings"
LICENCES = {
    "crafter": "MIT",
    "frozenlake": "MIT (Gymnasium)",
    "minigrid": "Apache-2.0",
    "scienceworld": "Apache-2.0",
    "sokoban": "Apache-2.0 (this package)",
    "sudoku": "Apache-2.0 (this package)",
    "textworldexpress": "Apache-2.0",
    "toolcalls": "Apache-2.0 (BFCL)",
    "web": "MIT (MiniWoB++)",
}
"""Of what a world is made of. A page of the user's own has its own."""
TRANSITIONS, MAX_STEPS = 2_000, 40
STREAMED = {
    "collect": ["collect", "frozenlake", "--transitions", "{rows}", "--out", "{out}"],
    "collect, 2 processes": ["collect", "frozenlake", "--transitions", "{rows}", "--out", "{out}", "--workers", "2"],
    "import table (JSONL)": ["import", "table", "{source}", "--out", "{out}", "--labels", "1%"],
    "import chat": ["import", "chat", "{source}", "--out", "{out}", "--labels", "1%"],
    "collect, frames": ["collect", "minigrid", "--option", "view=image", "--transitions", "{rows}", "--out", "{out}"],
}
"""Commands that stream; the chat's rows are calls, five to a conversation."""


def measure_world(name: str) -> dict[str, Any]:
    """Facts of a recording of a world as it comes, all behaviours equally."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.parquet"
        start = time.perf_counter()
        counts = data.collect(lambda: worlds.make(name), path, TRANSITIONS, max_steps=MAX_STEPS)
        seconds = time.perf_counter() - start
        report = check(path)
        images = len(list(path.with_suffix(".images").glob("*.png")))
    return {
        "world": name,
        **counts,
        "per_second": counts["transitions"] / seconds,
        "changed": 1 - report.unchanged,
        "distinct_actions": report.distinct_actions,
        "characters": {what: [length.median, length.p95] for what, length in report.characters.items()},
        "images": images,
        "licence": LICENCES[name],
    }


def measure_stream(what: str, rows: int) -> dict[str, Any]:
    """Rate and peak memory of a command over so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source.jsonl", Path(folder) / "out.parquet"
        if "{source}" in STREAMED[what]:
            with source.open("w") as file:
                file.writelines(f"{line}\n" for line in (_chat if "chat" in what else _table)(rows))
        words = [word.format(rows=rows, out=out, source=source) for word in STREAMED[what]]
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "swirl.cli", *words], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)  # which tells the memory of this process alone
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"{' '.join(words)} failed")
        size = out.stat().st_size
    return {
        "what": what,
        "rows": rows,
        "seconds": seconds,
        "peak_mb": usage.ru_maxrss / 1024,
        "out_mb": size / 2**20,
    }


def _table(rows: int) -> Iterator[str]:
    """Tickets: 20 steps to a trajectory, states of some 200 characters that differ."""
    for row in range(rows):
        ticket, step = divmod(row, 20)
        lines = [f"ticket {ticket}", *(f"field {field} {(row * 7919 + field * 104729) % 9973}" for field in range(10))]
        state, after = ("\n".join([*lines, f"priority {number}"]) for number in (step, step + 1))
        yield json.dumps(
            {"state": state, "action": "raise", "next_state": after, "trajectory": str(ticket), "step": step}
        )


def _chat(rows: int) -> Iterator[str]:
    for number in range(rows // 5):
        messages: list[dict] = [{"role": "user", "content": f"order {number}: five times, please"}]
        for call in range(5):
            function = {"name": "book", "arguments": json.dumps({"order": number, "table": call})}
            messages += [
                {"role": "assistant", "content": None, "tool_calls": [{"id": str(call), "function": function}]},
                {"role": "tool", "tool_call_id": str(call), "content": f"booked {number * 5 + call}"},
            ]
        yield json.dumps({"messages": messages})


def keep(name: str, facts: dict[str, Any]) -> None:
    """Keep a result with what it was measured by."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    facts |= {"commit": commit.stdout.strip(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{name}: kept")


def page() -> str:
    """The page with the tables of all kept results."""
    found = [json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))]
    rows = [["world", "changed", "state", "as change", "action", "distinct actions", "transitions/s", "licence"]]
    rows += [
        [
            f["world"],
            f"{f['changed']:.0%}",
            *(_lengths(f, what) for what in ("state", "change", "action")),
            f"{f['distinct_actions']:,}",
            f"{f['per_second']:,.0f}" if f["per_second"] >= 10 else f"{f['per_second']:.1f}",
            f["licence"],
        ]
        for f in found
        if "world" in f
    ]
    streams = [["command", "transitions", "transitions/s", "peak memory, MB", "file, MB"]]
    streams += [
        [f["what"], f"{f['rows']:,}", f"{f['rows'] / f['seconds']:,.0f}", f"{f['peak_mb']:.0f}", f"{f['out_mb']:.0f}"]
        for f in sorted((f for f in found if "what" in f), key=lambda f: (list(STREAMED).index(f["what"]), f["rows"]))
    ]
    text = PAGE.read_text(encoding="utf-8")
    for name, table in (("worlds", rows), ("streaming", streams)):
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{_markdown(table)}\n{end}{rest.partition(end)[2]}"
    return text


def _lengths(facts: dict[str, Any], what: str) -> str:
    if facts.get("images") and what != "action":
        return "image" if what == "state" else "–"
    return "{} / {}".format(*facts["characters"][what])


def _markdown(rows: list[list[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |\n" for row in rows]
    return head + "|---" * len(rows[0]) + "|\n" + "".join(body)


def main() -> None:
    """Measure, keep, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=("worlds", "streaming", "page"))
    parser.add_argument("--only", nargs="*", choices=worlds.WORLDS, default=list(worlds.WORLDS))
    parser.add_argument("--rows", nargs="*", type=int, default=[100_000, 1_000_000])
    a = parser.parse_args()
    if a.what == "worlds":
        for name in a.only:
            if command := worlds.availability(name):
                print(f"{name}: not here, its row stays as it is; {command}")
            else:
                keep(name, measure_world(name))
    elif a.what == "streaming":
        for number, what in enumerate(STREAMED):
            for rows in a.rows:
                keep(f"streaming-{number}-{rows}", measure_stream(what, rows))
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
