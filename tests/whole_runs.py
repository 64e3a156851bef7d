"""Whole runs for tests: a recipe of ten seconds, processes that die at a chosen moment, what two runs must share.

As a script it is a server: it imports what `swirl train` needs once, then forks a process per line of its input.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import wraps
from pathlib import Path

RECIPE = """
methods = ["pretrain", "warmup", "verified", "swirl"]
threads = 1
device = "cpu"
[data]
world = "minigrid"
options = { environments = ["MiniGrid-Fetch-5x5-N2-v0"] }
transitions = 600
max_steps = 10
labels = 60
validation_labels = 20
[model]
vocabulary = 300
hidden = 32
layers = 2
heads = 4
[pretrain]
steps = 6
batch = 8
[warmup]
steps = 8
batch = 8
[verified]
rounds = 1
pairs = 40
precision = 0.01
steps = 6
batch = 8
[swirl]
steps = 4
prompts = 2
generations = 4
learning_rate = 1e-3
replay = 0.5
fidelity = 0.5
replay_batch = 4
select = "last"
[evaluation]
checkpoints = 2
max_rows = 20
"""
"""All kinds of phases, every anchor on; a low `precision` lets verified relabelling keep pairs of untrained models.

`select = "last"`: the best checkpoint of so short a phase may be the one that it began with.
"""

PHASES = [
    "data",
    "start",
    "pretrain-forward-sft",
    "pretrain-inverse-sft",
    "warmup-forward-sft",
    "warmup-inverse-sft",
    "verified1-label",
    "verified1-forward-sft",
    "verified1-inverse-sft",
    "swirl1-label",
    "swirl1-forward-grpo",
    "swirl1-inverse-grpo",
    "test",
]
"""What `RECIPE` is made of."""

CLOCKS = {"cpu_seconds", "step_time"}
"""Keys of `log.jsonl` and `metrics.jsonl` that hold seconds."""


def contents(run):
    """Every file of a run folder as bytes, or parsed without its times.

    Times are in: `lock` (who holds it, since when; left out), `clock.jsonl` (left out), `ledger.json` (`seconds_cpu`,
    `finished_at`, the size and hash of each `log.jsonl`, its own checksum), `log.jsonl` and
    `metrics.jsonl` (`CLOCKS`). Nowhere else.
    """
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if name in ("lock", "clock.jsonl") or path.is_dir():
            continue
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]
        elif name == "ledger.json":
            ledger = json.loads(path.read_text())
            found[name] = ledger["version"], ledger["recipe_sha256"], [_untimed(entry) for entry in ledger["phases"]]
        else:
            found[name] = path.read_bytes()
    return found


def _untimed(entry):
    files = {name: seal for name, seal in entry["files"].items() if name != "log.jsonl"}
    return entry["name"], entry["folder"], files, "log.jsonl" in entry["files"]


def differing(run, other):
    """Names of the files that two run folders do not share, in the order in which a run makes them."""
    mine, yours = contents(run), contents(other)
    order = {name: number for number, name in enumerate(["recipe.toml", "data", "phases", "test"])}
    names = [name for name in {**mine, **yours} if mine.get(name) != yours.get(name)]
    return sorted(names, key=lambda name: (order.get(name.split("/")[0], 9), name))


def phases_of(run):
    """Names of the committed phases, in order."""
    return [phase["name"] for phase in json.loads((run / "ledger.json").read_text())["phases"]]


class Server:
    """Starts processes that run `swirl` and are otherwise fresh."""

    def __init__(self, scratch):
        self.scratch = scratch
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, *argv, moment=None, cwd="."):
        """Runs `swirl ARGV`; its exit code (minus the signal that killed it), stdout and stderr.

        Args:
            argv: Words of the command line.
            moment: (phase, event, number, "kill" or "full"), see `_Moments`.
            cwd: Where to run it.
        """
        order = {"argv": [str(word) for word in argv], "moment": moment, "cwd": str(cwd), "out": str(self.scratch)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return code, *((self.scratch / name).read_text() for name in ("stdout", "stderr"))

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


class _Moments:
    """Kills this process, or fills its disk, at the n-th event of a kind within a phase.

    Events: `step` (an optimiser step is done), `token` (a model generates one), `weights` and `state` (half of a
    `model.safetensors` or of a `.pt` is on disk), `copy` (half of an exported file is), `seal` (files are whole, but
    nobody vouches for them yet), the system calls that make things durable or delete them, and `done` (the phase is
    committed).
    """

    CALLS = ("fsync", "replace", "rename", "unlink", "rmdir")

    def __init__(self, phase, event, number, then):
        self.wanted, self.left, self.then, self.phase, self.generating = (phase, event), number, then, None, False

    def happened(self, event, damage=lambda: None, full=None):
        if (self.phase, event) == self.wanted:
            self.left -= 1
            if self.left == 0:
                damage()
                if self.then == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise full

    def install(self):
        import safetensors
        import torch
        import transformers
        from transformers import modeling_utils

        from swirl import durable, fit, ledger

        run_phase = ledger.Run.phase

        def phase(run, name, work, **options):
            self.phase = name
            folder = run_phase(run, name, work, **options)
            self.happened("done")
            return folder

        ledger.Run.phase = phase
        self.wrap(fit._Progress, "on_step_end", "step")
        self.wrap(durable, "seal", "seal")
        for call in self.CALLS:
            self.wrap(os, call, call)
        self.halve(
            modeling_utils, "safe_save_file", "weights", 1, safetensors.SafetensorError("No space left on device")
        )
        self.halve(
            torch, "save", "state", 1, RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")
        )
        self.halve(shutil, "copyfile", "copy", 1, OSError(28, "No space left on device"))
        generate, forward = transformers.GenerationMixin.generate, transformers.LlamaForCausalLM.forward

        def generating(*args, **kwargs):
            self.generating = True
            try:
                return generate(*args, **kwargs)
            finally:
                self.generating = False

        @wraps(forward)  # the scorer reads its parameters
        def token(*args, **kwargs):
            if self.generating:
                self.happened("token")
            return forward(*args, **kwargs)

        transformers.GenerationMixin.generate = generating
        transformers.LlamaForCausalLM.forward = token

    def wrap(self, owner, name, event):
        real = getattr(owner, name)

        def wrapped(*args, **kwargs):
            self.happened(event, full=OSError(28, "No space left on device"))
            return real(*args, **kwargs)

        setattr(owner, name, wrapped)

    def halve(self, owner, name, event, argument, full):
        """After the call, the file that it wrote loses its second half."""
        real = getattr(owner, name)

        def halved(*args, **kwargs):
            result = real(*args, **kwargs)
            path = args[argument]
            self.happened(event, lambda: os.truncate(path, os.path.getsize(path) // 2), full)
            return result

        setattr(owner, name, halved)


def _serve():
    """Reads orders, answers with exit codes."""
    from swirl import cli
    from swirl.methods import pretrain, session, swirl, verified, warmup  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(Path(order["out"]) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
            code = 1
            try:
                os.chdir(order["cwd"])
                if order["moment"]:
                    _Moments(*order["moment"]).install()
                code = cli.main(order["argv"])
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
