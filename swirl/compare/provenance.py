"""Where cells ran: commit, machine and versions of each, and what keeps the costs of several from being compared."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl import models

if TYPE_CHECKING:
    from swirl.compare.reading import Cells

PACKAGES = ("swirl-wm", "torch", "transformers", "trl", "datasets", "numpy")
DECIDING = ("torch", "transformers", "trl")
"""Packages that train and generate: another version may give other figures."""
SAME = ("cpu", "gpu", "cores", "threads")
"""What CPU seconds depend on, and is the same for cells whose costs are compared."""
BUSY = 1.25
"""Load per core from which a machine counts as busy: what shares caches and cores makes each CPU second do less."""


def machine(device: str, threads: int) -> dict[str, Any]:
    """What a run's cost depends on, as it is at its end; `load` is the average of its last 15 minutes."""
    return {
        "processor": platform.machine(),
        "cpu": _cpu(),
        "gpu": _gpu() if models.device_of(device).type == "cuda" else "",
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[2], 1),
    }


def _cpu() -> str:
    """The processor's name; "" where the system does not tell."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name()


def versions() -> dict[str, str]:
    """Of Python and of the packages that figures depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def commit() -> str:
    """The commit of the package's source, with `+` where it was edited; "" outside a clone."""
    where = Path(__file__).parent.parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=where, capture_output=True, text=True).stdout.strip()

    head = git("rev-parse", "--short", "HEAD")
    return head + "+" * bool(head and git("status", "--porcelain", "--untracked-files=no", "--", str(where)))


def warnings(paired: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """Sentences on what equal CPU seconds do not mean on these machines; none where nothing is known against them.

    A fact that a cell does not have is not held against it: it was not noted yet.

    Args:
        paired: The machines of the runs of each seed, whose costs are compared.
    """
    told, differ = [], []
    machines = [one for group in paired for one in group]
    for fact in SAME:
        apart = ({str(one[fact]) or "none" for one in group if fact in one} for group in paired)
        values = sorted(set().union(*(found for found in apart if len(found) > 1)))
        differ += [f"{fact} {' and '.join(values)}"] if values else []
    if differ:
        told.append(
            f"Not all runs of a seed were on machines of one kind ({'; '.join(differ)}): equal CPU seconds are not "
            "equal cost here, equal tokens are nearer to it."
        )
    if any(one.get("gpu") for one in machines):
        told.append("What a GPU did is not in the CPU seconds, which are those of the process that drives it.")
    busy = [one for one in machines if one.get("load", 0) > BUSY * one["cores"]]
    if busy:
        worst = max(busy, key=lambda one: one["load"] / one["cores"])
        told.append(
            f"{len(busy)} of {len(machines)} runs ended on a busy machine (load up to {worst['load']:g} on "
            f"{worst['cores']} cores), where a CPU second does less."
        )
    return told


def mixed(cells: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence on runs of different code; none where all are of one commit and of the same versions."""
    commits = {cell["commit"] for cell in cells}
    told = [f"of {len(commits)} commits"] if len(commits) > 1 else []
    for package in DECIDING:
        versions = sorted({cell["versions"][package] for cell in cells if package in cell["versions"]})
        told += [f"of {package} {' and '.join(versions)}"] if len(versions) > 1 else []
    return [f"The runs are {', '.join(told)}; the report lists which."] if told else []


def table(files: "dict[str, Cells]") -> list[list[str]]:
    """Each run's commit, machine and versions, equal ones together; the load is told as a range."""
    ran: dict[tuple[str, str, str], list[tuple[str, float | None]]] = {}
    for at, cells in files.items():
        for method, by_seed in cells.items():
            for seed, cell in by_seed.items():
                facts = {name: value for name, value in cell["machine"].items() if name != "load" and value != ""}
                on, of = (", ".join(f"{k} {v}" for k, v in one.items()) for one in (facts, cell["versions"]))
                named = " ".join(filter(None, [method, at, f"seed {seed}"]))
                ran.setdefault((cell["commit"], on, of), []).append((named, cell["machine"].get("load")))
    lines = [["commit", "machine", "load", "versions", "runs"]]
    for (at, on, of), runs in ran.items():
        loads = [load for _, load in runs if load is not None]
        load = f"{min(loads):g} to {max(loads):g}" if loads else ""
        lines.append([at, on, load, of, ", ".join(name for name, _ in runs)])
    return lines
