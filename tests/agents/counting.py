"""A forward model that knows its world by heart, and that world."""

import json
import shutil
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import TINY, randomise

from swirl import ledger, models, prompts, train
from swirl.config import Recipe
from swirl.tiny import build
from swirl.worlds.base import refuse_outside_episode, unknown

ACTIONS = ("up", "down")
TOP = 4


class Silent:
    """Counts up and down between 0 and 4. At 4 it ends with a reward of 1, at 0 with none; it begins in between."""

    name = "counter"
    behaviours = ("random",)
    complete = repeatable = True

    def __init__(self):
        self._running = False

    def reset(self, seed):
        self._at, self._running = 1 + seed % (TOP - 1), True
        return state_of(self._at), {"layout": str(seed % (TOP - 1))}

    def step(self, action):
        if action not in ACTIONS:
            raise unknown("action", action, ACTIONS)
        refuse_outside_episode(self._running)
        before = state_of(self._at)
        self._at += 1 if action == "up" else -1
        reward, ended = outcome_of(before, state_of(self._at))
        self._running = not ended
        return state_of(self._at), reward, ended, False, {}

    def actions(self, state):
        return ACTIONS

    def act(self, behaviour, rng):
        return ACTIONS[rng.integers(2)]

    def close(self):
        self._running = False


class Counter(Silent):
    """The same, which says how its rewards are read off its states."""

    def outcome(self, state, next_state):
        return outcome_of(state, next_state)


def outcome_of(state, next_state):
    return float(next_state == state_of(TOP)), next_state in (state_of(0), state_of(TOP))


def state_of(number):
    return f"count {number}"


ROWS = [
    {"state": state_of(n), "action": action, "next_state": state_of(n + d), "history": []}
    for n in range(1, TOP)
    for action, d in zip(ACTIONS, (1, -1), strict=True)
]


def trained(folder):
    """Train a forward model into a folder until it is always right about `Counter`; seconds."""
    spec = replace(TINY, max_length=64)
    build(["count 1", "count 2", "up", "down"] * 9, folder / "start", spec, seed=0)
    randomise(folder / "start", std=0.16)
    tokenizer = models.load_tokenizer(folder / "start")
    rows = [prompts.encode(tokenizer, "forward", row, "terse", 64) for row in ROWS]
    schedule = train.Schedule(steps=120, batch=6, learning_rate=5e-3, lr_warmup=0.05, seed=0, checkpoints=1)
    out = folder / "forward"
    train.sft(folder / "start", rows, out, schedule=schedule, model=spec, select=lambda found: found[-1], device="cpu")
    card = {"roles": ["forward"], "model": asdict(spec), "data": {"history": 0, "seed": 0}}
    (out / "swirl.json").write_text(json.dumps(card | {"evaluation": {"max_rows": 5}}))
    return out


def run_of(checkpoint, folder):
    """A run folder around the forward model, as if it had trained on the layout "0"."""
    with ledger.Run.open(folder, replace(Recipe(), threads=1).toml()) as opened:
        phase = opened.phase("start", lambda out: shutil.copytree(checkpoint, out, dirs_exist_ok=True))
    name = str(phase.relative_to(folder))
    (folder / "results.json").write_text(json.dumps({"forward": name, "inverse": name}))
    (folder / "data").mkdir()
    rows = []
    for i, row in enumerate(ROWS * 4):
        reward, terminated = outcome_of(row["state"], row["next_state"])
        rows.append({**row, "reward": reward, "terminated": terminated, "trajectory": str(i), "layout": "0"})
    columns = [{key: value for key, value in row.items() if key != "history"} for row in rows]
    pq.write_table(pa.Table.from_pylist(columns), folder / "data" / "labelled.parquet")
    return folder
