"""What a finished run leaves behind, from a run folder with known numbers."""

import json

from swirl.compare import kept


def test_cost_adds_up_and_rewards_are_those_of_the_ends(tmp_path):
    logs = {
        "data": None,
        # Interrupted after 20 seconds, which the log knows of and the ledger does not.
        "warmup-forward-sft": [{"num_tokens": 50.0, "cpu_seconds": 20.0}, {"num_tokens": 100.0, "cpu_seconds": 25.0}],
        "swirl1-forward-grpo": [{"reward": float(i), "num_tokens": 10.0 * i} for i in range(20)] + [{"loss": 0.1}],
        "test": None,
    }
    phases = []
    for name, lines in logs.items():
        (tmp_path / name).mkdir()
        phases.append({"name": name, "folder": name, "seconds_cpu": 5.04})
        if lines is not None:
            (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "ledger.json").write_text(json.dumps({"phases": phases}))
    assert kept._cost(tmp_path) == {
        "data": {"cpu_seconds": 0.0, "tokens": 0.0},
        "warmup-forward-sft": {"cpu_seconds": 25.0, "tokens": 100.0},
        "swirl1-forward-grpo": {"cpu_seconds": 30.0, "tokens": 290.0},
        "test": {"cpu_seconds": 35.1, "tokens": 290.0},
    }
    assert kept._rewards(tmp_path) == {"swirl1-forward-grpo": {"first": 0.5, "last": 18.5}}
