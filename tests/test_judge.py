"""The judge against a real HTTP server that speaks OpenAI's protocol: scores, faults, caps, kills, no key anywhere."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from swirl import cli, errors, intervals
from swirl.eval import judge as module
from swirl.eval.judge import Judge
from swirl.eval.rubrics import key_of, question, read_score

pytest.importorskip("openai", reason="the extra judge is not installed")

SECRET = "sk-not-to-be-seen-4711"
ROWS = [
    {
        "state": f"lamp {i} off",
        "action": f"press {i}",
        "next_state": f"lamp {i} on",
        "trajectory": f"t{i // 3}",
        "step": i % 3,
    }
    for i in range(12)
]
TRUTHS = [row["next_state"] for row in ROWS]


def verdict(score, reason="so it is"):
    return json.dumps({"reason": reason, "score": score})


class Endpoint(ThreadingHTTPServer):
    """Speaks the protocol; `answer(asked, times)` says what it replies to a question that it was asked so often before.

    An answer is the text of a reply, or (status, body, headers).
    """

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.asked, self.bodies, self.keys = answer, [], [], []
        self.under_way = self.most = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][1]["content"]
        asked = json.loads(content if isinstance(content, str) else content[0]["text"])
        name = asked.get("predicted_next_state", asked.get("inferred_action"))
        with self.server.lock:
            times = self.server.asked.count(name)
            self.server.asked.append(name)
            self.server.bodies.append(body)
            self.server.keys.append(self.headers["Authorization"])
            self.server.under_way += 1
            self.server.most = max(self.server.most, self.server.under_way)
        reply = self.server.answer(name, times)
        with self.server.lock:
            self.server.under_way -= 1
        status, text, headers = reply if isinstance(reply, tuple) else (200, completion(reply), {})
        data = text.encode()
        try:
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", "Content-Length": len(data), **headers}.items():
                self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it did not wait

    def log_message(self, *_):
        pass


def completion(content, **more):
    usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps({**whole, **more})


def refusal(status, message="no", **more):
    return status, json.dumps({"error": {"message": message, **more}}), {"retry-after-ms": "1"}


@pytest.fixture
def serve(monkeypatch):
    """Starts endpoints, which end with the test."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("OPENAI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    servers = []

    def start(answer):
        servers.append(Endpoint(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "deep" / "judge.jsonl"


def lamp(name):
    return int(name.split()[1])


def by_lamp(name, times):
    """Scores lamp i with i, up to 10."""
    return verdict(min(10, lamp(name)))


def test_scores_come_in_the_order_of_the_rows(serve, cache):
    server = serve(lambda name, times: (time.sleep(0.02 * (lamp(name) % 3)), by_lamp(name, times))[1])
    assert Judge(server.url, "m", cache).scores("forward", ROWS, TRUTHS) == [*range(11), 10]
    assert sorted(server.asked) == sorted(TRUTHS)
    assert 1 < server.most <= module.PARALLEL


def test_what_it_is_asked(serve, cache):
    server = serve(by_lamp)
    Judge(server.url, "some/model", cache).scores("forward", ROWS[:1], ["lamp 7 dim"])
    Judge(server.url, "some/model", cache).scores("inverse", ROWS[:1], ["touch 7"])
    forward, inverse = server.bodies
    assert (forward["model"], forward["temperature"]) == ("some/model", 0.0)
    assert forward["response_format"]["json_schema"]["schema"]["required"] == ["reason", "score"]
    assert json.loads(forward["messages"][1]["content"]) == {
        "state": "lamp 0 off",
        "action": "press 0",
        "recorded_next_state": "lamp 0 on",
        "predicted_next_state": "lamp 7 dim",
    }
    assert json.loads(inverse["messages"][1]["content"]) == {
        "state": "lamp 0 off",
        "next_state": "lamp 0 on",
        "recorded_action": "press 0",
        "inferred_action": "touch 7",
    }
    for body in (forward, inverse):
        rubric = body["messages"][0]["content"]
        assert all(f"\n{i}. " in rubric for i in (1, 2, 3)) and "from 0 to 10" in rubric
    assert set(server.keys) == {f"Bearer {SECRET}"}


def test_the_mean_has_an_interval_and_missing_rows_are_counted(serve, cache):
    server = serve(lambda name, times: "no idea" if lamp(name) in (2, 5) else by_lamp(name, times))
    score, missing = Judge(server.url, "m", cache).results("forward", ROWS, TRUTHS)
    known = [i for i in range(12) if i not in (2, 5)]
    values = [min(10, i) for i in known]
    low, high = intervals.bootstrap_interval(values, [ROWS[i]["trajectory"] for i in known])
    assert score == {
        "role": "forward",
        "metric": "judge_score",
        "value": sum(values) / 10,
        "low": low,
        "high": high,
        "n": 10,
    }
    assert missing == {"role": "forward", "metric": "judge_missing", "value": 2, "low": None, "high": None, "n": 12}


def test_its_interval_is_over_layouts_where_there_are_enough(serve, cache):
    server = serve(by_lamp)
    rows = [{**row, "layout": f"l{i % 6}"} for i, row in enumerate(ROWS)]
    score, _ = Judge(server.url, "m", cache).results("forward", rows, TRUTHS)
    values = [min(10, i) for i in range(12)]
    assert (score["low"], score["high"]) == intervals.bootstrap_interval(values, [row["layout"] for row in rows])


def test_where_nothing_was_scored_there_is_no_mean(serve, cache):
    server = serve(lambda name, times: "{}")
    [missing] = Judge(server.url, "m", cache).results("inverse", ROWS, TRUTHS)
    assert (missing["metric"], missing["value"]) == ("judge_missing", 12)


def test_an_unreadable_prediction_scores_0_and_is_not_asked(serve, cache):
    server = serve(by_lamp)
    assert Judge(server.url, "m", cache).scores("forward", ROWS[:2], ["", "lamp 9 on"]) == [0, 9]
    assert server.asked == ["lamp 9 on"]


def test_of_unreadable_predictions_as_large_a_share_counts_as_of_the_others(serve, cache):
    server, texts = serve(lambda name, times: verdict(8)), [*TRUTHS[:8], "", "", "", ""]
    for requests, scored, zeros in ((2, 2, 1), (4, 4, 2), (8, 8, 4)):  # the mean is 8 * 8 / 12 whatever is asked
        cache.unlink(missing_ok=True)
        found = Judge(server.url, "m", cache, requests=requests).scores("forward", ROWS, texts)
        assert (found.count(8), found.count(0)) == (scored, zeros)
    assert Judge(server.url, "m", cache, requests=0).scores("forward", ROWS, [""] * 12) == [0] * 12


def test_equal_questions_are_asked_once(serve, cache):
    server = serve(by_lamp)
    assert Judge(server.url, "m", cache).scores("forward", [ROWS[0]] * 5, ["lamp 3 on"] * 5) == [3] * 5
    assert server.asked == ["lamp 3 on"]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (verdict(0), 0),
        (verdict(10), 10),
        (' {"score": 4, "reason": ""}\n', 4),
        (verdict(11), None),
        (verdict(-1), None),
        (verdict(7.0), 7),
        (verdict(7.5), None),
        ('{"reason": "a", "score": NaN}', None),
        ('{"reason": "a", "score": 1e999}', None),
        (verdict(True), None),
        (verdict("7"), None),
        (verdict(None), None),
        ('{"score": 7}', None),
        ('{"reason": 1, "score": 7}', None),
        ('{"score": 7, "sure": true}', None),
        ('{"reason": "a", "score": 7, "sure": true}', 7),
        ("7", None),
        ("[7]", None),
        ("```json\n" + verdict(7) + "\n```", 7),
        ("```\n" + verdict(7) + "```", 7),
        ("<think>It may be a 3.\n" + verdict(3) + "</think>\n\n" + verdict(7), 7),
        ("so thought</think>```json\n" + verdict(7) + "\n```", 7),
        ("<think>\n" + verdict(7), None),  # cut off before it had made up its mind
        (verdict(7) + " I hope this helps", None),
        ("", None),
        ("[" * 100_000, None),
        (None, None),
    ],
)
def test_a_reply_is_read_for_its_score_and_nothing_is_guessed(text, score):
    assert read_score(text) == score


GARBAGE = {
    "unreadable": "I would say 7/10.",
    "no content": (200, completion(None), {}),
    "no choices": (200, completion("", choices=[]), {}),
    "null choices": (200, completion("", choices=None), {}),
    "not an object": (200, "[1, 2]", {}),
    "no JSON": (200, "<html>busy</html>", {}),
    "HTML": (200, "<html>busy</html>", {"Content-Type": "text/html"}),
    "empty": (200, "", {}),
    "half a surrogate": (200, completion("\ud800", usage=None), {}),
    "a fault of the server": refusal(500),
    "no body": (503, "", {"retry-after-ms": "1"}),
    "too long": refusal(400, "the context is too short", code="context_length_exceeded"),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_a_call_that_fails_is_missing_and_never_a_zero(serve, cache, garbage, caplog):
    server = serve(lambda name, times: garbage if lamp(name) == 4 else by_lamp(name, times))
    found = Judge(server.url, "m", cache).scores("forward", ROWS, TRUTHS)
    assert found == [None if i == 4 else min(10, i) for i in range(12)]
    assert "calls failed; the last: " in caplog.text


def test_only_a_reply_is_kept_and_what_failed_is_asked_again(serve, cache):
    server = serve(lambda name, times: {3: "garbage", 4: refusal(500)}.get(lamp(name)) or by_lamp(name, times))
    first = Judge(server.url, "m", cache).scores("forward", ROWS, TRUTHS)
    assert [i for i, score in enumerate(first) if score is None] == [3, 4]
    assert server.asked.count(TRUTHS[4]) == 1 + module.RETRIES
    server.answer = by_lamp
    server.asked.clear()
    again = Judge(server.url, "m", cache).scores("forward", ROWS, TRUTHS)
    assert (server.asked, again[4], again[3]) == ([TRUTHS[4]], 4, None)  # 3 has its answer, such as it is


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_for_the_moment_is_asked_again_by_the_client(serve, cache, status):
    server = serve(lambda name, times: refusal(status) if times < 2 else by_lamp(name, times))
    judge = Judge(server.url, "m", cache, requests=12)
    assert judge.scores("forward", ROWS, TRUTHS) == [*range(11), 10]
    assert len(server.asked) == 36  # the client's own repetitions are not calls


def test_a_slow_reply_is_waited_for_and_one_that_is_too_slow_is_missing(serve, cache, monkeypatch):
    monkeypatch.setattr(module, "RETRIES", 0)
    server = serve(lambda name, times: (time.sleep(1.5 if lamp(name) == 4 else 0.1), by_lamp(name, times))[1])
    found = Judge(server.url, "m", cache, timeout=0.9).scores("forward", ROWS[:6], TRUTHS[:6])
    assert found == [0, 1, 2, 3, None, 5]


def test_nobody_there_ends_after_a_few_calls(serve, cache, monkeypatch, caplog):
    monkeypatch.setattr(module, "RETRIES", 0)
    rows = ROWS * 9
    texts = [f"lamp {i} on" for i in range(len(rows))]
    judge = Judge("http://127.0.0.1:9/v1", "m", cache)
    assert judge.scores("forward", rows, texts) == [None] * len(rows)
    assert module.GIVE_UP <= judge._requests < module.GIVE_UP + module.PARALLEL
    assert "given up after 2" in caplog.text and "108 questions have no answer yet" in caplog.text
    assert not cache.exists()


def test_failures_that_are_not_in_a_row_do_not_end_it(serve, cache):
    server = serve(lambda name, times: "garbage" if lamp(name) % 2 else by_lamp(name, times))
    rows = [ROWS[0]] * 80
    found = Judge(server.url, "m", cache).scores("forward", rows, [f"lamp {i} on" for i in range(80)])
    assert found == [None if i % 2 else min(10, i) for i in range(80)]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_is_the_users_to_mend(serve, cache, status):
    server = serve(lambda name, times: refusal(status, f"no such thing, {SECRET}"))
    with pytest.raises(errors.InputError, match="refuses the key or the model 'm'") as caught:
        Judge(server.url, "m", cache).scores("forward", ROWS, TRUTHS)
    assert SECRET not in str(caught.value) and "[key]" in str(caught.value)
    assert len(server.asked) <= module.PARALLEL


def test_options_that_an_endpoint_refuses_by_name_are_left_out(serve, cache):
    def answer(name, times):
        body = server.bodies[-1]
        for option in ("temperature", "response_format"):
            if option in body:
                return refusal(400, f"unsupported: {option}", param=option + ".type" * (option != "temperature"))
        return by_lamp(name, times)

    server = serve(answer)
    judge = Judge(server.url, "m", cache)
    assert judge.scores("forward", ROWS[:1], TRUTHS[:1]) == [0]
    assert judge.scores("forward", ROWS[1:], TRUTHS[1:]) == [*range(1, 11), 10]
    assert len(server.asked) == 2 + 12
    assert judge._requests == 2 + 12


@pytest.mark.parametrize("status", [400, 422])
def test_an_endpoint_that_refuses_the_form_without_naming_it_is_asked_without(serve, cache, status):
    def answer(name, times):
        return refusal(status, "bad request") if "response_format" in server.bodies[-1] else by_lamp(name, times)

    server = serve(answer)
    judge = Judge(server.url, "m", cache)
    assert judge.scores("forward", ROWS[:1], TRUTHS[:1]) == [0]
    assert judge.scores("forward", ROWS[1:], TRUTHS[1:]) == [*range(1, 11), 10]
    assert len(server.asked) == judge._requests == 2 + 11  # it is learnt once
    assert all(body["temperature"] == 0 for body in server.bodies)


def test_a_question_that_is_refused_with_any_form_is_missing_and_the_others_keep_theirs(serve, cache):
    server = serve(lambda name, times: refusal(400, "too long") if lamp(name) == 4 else by_lamp(name, times))
    judge = Judge(server.url, "m", cache)
    assert judge.scores("forward", ROWS, TRUTHS) == [None if i == 4 else min(10, i) for i in range(12)]
    assert server.asked.count(TRUTHS[4]) == 2
    assert sum("response_format" not in body for body in server.bodies) == 1


def test_the_cap_in_requests_is_never_passed_and_more_goes_on_from_there(serve, cache, caplog):
    caplog.set_level(logging.INFO)
    server = serve(by_lamp)
    found = Judge(server.url, "m", cache, requests=5).scores("forward", ROWS, TRUTHS)
    assert (len(server.asked), found.count(None)) == (5, 7)
    assert [score for score in found if score is not None] == [min(10, i) for i, s in enumerate(found) if s is not None]
    assert "--judge-requests 5 reached" in caplog.text and "7 questions have no answer yet" in caplog.text
    # Those with the first hashes: a sample that depends on nothing else.
    keys = sorted((key_of("m", "forward", question("forward", ROWS[i], TRUTHS[i])), i) for i in range(12))
    assert {i for i, score in enumerate(found) if score is not None} == {i for _, i in keys[:5]}
    assert None not in Judge(server.url, "m", cache, requests=7).scores("forward", ROWS, TRUTHS)
    assert sorted(server.asked) == sorted(TRUTHS)


def test_a_cap_of_none_asks_nothing_and_reads_the_cache(serve, cache):
    server = serve(by_lamp)
    Judge(server.url, "m", cache).scores("forward", ROWS[:3], TRUTHS[:3])
    asked = len(server.asked)
    for caps in ({"requests": 0}, {"tokens": 0}):
        found = Judge(server.url, "m", cache, **caps).scores("forward", ROWS, TRUTHS)
        assert found == [0, 1, 2] + [None] * 9
    assert len(server.asked) == asked


def test_the_cap_in_tokens_is_passed_by_the_calls_under_way_at_most(serve, cache, caplog):
    server = serve(by_lamp)
    judge = Judge(server.url, "m", cache, tokens=500)  # a call takes 100
    found = judge.scores("forward", ROWS, TRUTHS)
    assert 5 <= len(server.asked) < 5 + module.PARALLEL
    assert 12 - found.count(None) == len(server.asked)
    assert "--judge-tokens 500 reached" in caplog.text


def test_tokens_are_estimated_where_the_endpoint_does_not_count_them(serve, cache):
    server = serve(lambda name, times: (200, completion(by_lamp(name, times), usage=None), {}))
    judge = Judge(server.url, "m", cache)
    judge.scores("forward", ROWS[:1], TRUTHS[:1])
    letters = sum(len(turn["content"].encode()) for turn in server.bodies[0]["messages"]) + len(verdict(0))
    assert judge._tokens == letters // 3


def test_a_cap_is_of_both_roles_together(serve, cache):
    server = serve(by_lamp)
    judge = Judge(server.url, "m", cache, requests=15)
    assert None not in judge.scores("forward", ROWS, TRUTHS)
    assert judge.scores("inverse", ROWS, TRUTHS).count(None) == 9


def test_roles_that_are_announced_share_a_cap(serve, cache):
    judge = Judge(serve(by_lamp).url, "m", cache, requests=15, parts=2)
    missing = [judge.scores(role, ROWS, TRUTHS).count(None) for role in ("forward", "inverse")]
    assert missing == [12 - 7, 12 - 8]


def test_a_rerun_asks_nothing_and_another_model_or_prediction_is_another_question(serve, cache):
    server = serve(by_lamp)
    first = Judge(server.url, "m", cache).scores("forward", ROWS, TRUTHS)
    server.asked.clear()
    assert Judge(server.url, "m", cache).scores("forward", ROWS, TRUTHS) == first
    assert Judge("http://127.0.0.1:9/v1", "m", cache).scores("forward", ROWS, TRUTHS) == first
    assert server.asked == []
    Judge(server.url, "n", cache).scores("forward", ROWS[:2], TRUTHS[:2])
    Judge(server.url, "m", cache).scores("inverse", ROWS[:2], TRUTHS[:2])
    Judge(server.url, "m", cache).scores("forward", ROWS[:2], TRUTHS[2:4])
    assert len(server.asked) == 6


def test_a_cache_that_was_cut_off_loses_one_line_and_a_foreign_one_is_refused(serve, cache):
    server = serve(by_lamp)
    Judge(server.url, "m", cache).scores("forward", ROWS, TRUTHS)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-9])
    server.asked.clear()
    assert Judge(server.url, "m", cache).scores("forward", ROWS, TRUTHS) == [*range(11), 10]
    assert len(server.asked) == 1
    assert sorted(cache.read_bytes().splitlines()) == sorted(whole.splitlines())
    for line in (b'{"name": 1}\n', b"hello\n", b'{"key": "k", "score": 99}\n', b"[]\n"):
        cache.write_bytes(whole + line)
        with pytest.raises(errors.InputError, match=r"judge.jsonl:13 is no judge's answer; delete the line"):
            Judge(server.url, "m", cache)


def test_a_reply_in_the_cache_is_read_as_replies_are_read_now(serve, cache):
    server = serve(lambda name, times: "```json\n" + verdict(6) + "\n```" if lamp(name) else "no idea")
    Judge(server.url, "m", cache).scores("forward", ROWS[:2], TRUTHS[:2])
    lines = [json.loads(line) for line in cache.read_text().splitlines()]
    assert sorted((line["score"] for line in lines), key=str) == [6, None]
    cache.write_text("".join(json.dumps({**line, "score": None}) + "\n" for line in lines))  # as a stricter one wrote
    assert Judge("http://127.0.0.1:9/v1", "m", cache).scores("forward", ROWS[:2], TRUTHS[:2]) == [None, 6]


SCRIPT = """
import json, sys
from swirl.eval.judge import Judge
url, cache, rows, texts = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
print(json.dumps(Judge(url, "m", cache).scores("forward", rows, texts)))
"""


def test_what_was_answered_before_a_kill_is_not_asked_again(serve, cache):
    server = serve(lambda name, times: (time.sleep(0.15), by_lamp(name, times))[1])
    texts = [f"lamp {i} on" for i in range(60)]
    rows = [ROWS[0]] * 60
    command = [sys.executable, "-c", SCRIPT, server.url, str(cache), json.dumps(rows), json.dumps(texts)]
    root = str(Path(module.__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root}
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (cache.is_file() and cache.read_bytes().count(b"\n") >= 10):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    time.sleep(0.5)  # what was under way arrives at the server
    written = [json.loads(line)["key"] for line in cache.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 10 <= len(written) < 60
    before = len(server.asked)
    assert before <= len(written) + module.PARALLEL  # what was not written was under way
    out = subprocess.run(command, env=env, capture_output=True, check=True).stdout
    assert json.loads(out) == [min(10, i) for i in range(60)]
    after = [key_of("m", "forward", question("forward", ROWS[0], text)) for text in server.asked[before:]]
    assert sorted(after + written) == sorted(key_of("m", "forward", question("forward", ROWS[0], t)) for t in texts)
    assert len(cache.read_text().splitlines()) == 60


def test_the_key_is_nowhere_but_in_the_request(serve, cache, caplog):
    caplog.set_level(logging.DEBUG)
    echo = {
        1: verdict(5, reason=f"your key is {SECRET}"),
        2: f"garbage {SECRET}",
        3: refusal(500, f"fault with {SECRET}"),
        4: refusal(400, f"Incorrect: {SECRET}"),
    }
    server = serve(lambda name, times: echo.get(lamp(name)) or by_lamp(name, times))
    found = Judge(server.url, "m", cache).scores("forward", ROWS, TRUTHS)
    assert (found[1], found[2], found[3], found[4]) == (5, None, None, None)
    assert set(server.keys) == {f"Bearer {SECRET}"}
    assert SECRET not in caplog.text and SECRET not in cache.read_text()
    assert "[key]" in cache.read_text()


def test_without_a_key_local_servers_are_asked_all_the_same(serve, cache, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    server = serve(by_lamp)
    assert Judge(server.url, "m", cache).scores("forward", ROWS[:2], TRUTHS[:2]) == [0, 1]
    assert set(server.keys) == {"Bearer none"}


def test_a_missing_client_is_said_with_what_installs_it(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(errors.MissingPartError, match=r"pip install '\.\[judge\]'"):
        Judge("http://localhost/v1", "m", cache)


# The command


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_swirl_eval_adds_the_judges_rows(serve, cache, run_folder, tmp_path, capsys, caplog):
    rows = [
        {"state": "door open", "action": "go left", "next_state": "door shut", "trajectory": f"t{i}", "step": 0}
        for i in range(3)
    ]
    server = serve(lambda name, times: verdict(6))
    words = ["eval", write(tmp_path / "in.jsonl", rows), "--forward", str(run_folder), "--inverse", str(run_folder)]
    words += ["--judge", server.url, "--judge-model", "m", "--judge-cache", str(cache), "--device", "cpu", "--json"]
    assert cli.main(words) == 0
    found = {(row["role"], row["metric"]): row for row in json.loads(capsys.readouterr().out)}
    for role in ("forward", "inverse"):
        assert found[role, "judge_missing"]["value"] == 0
        assert found[role, "judge_score"]["n"] == 3
        assert str(run_folder) in found[role, "judge_score"]["model"]
    asked = len(server.asked)
    assert cli.main(words) == 0
    assert len(server.asked) == asked
    assert SECRET not in caplog.text + capsys.readouterr().err


def test_a_judge_that_scores_no_prediction_of_a_model_is_no_success(serve, cache, run_folder, tmp_path, capsys):
    rows = [
        {"state": f"lamp {i}", "action": "go left", "next_state": "door shut", "trajectory": "t", "step": i}
        for i in range(2)
    ]
    replies = iter(["no idea", "no idea", "no idea", verdict(6)])
    server = serve(lambda name, times: next(replies))
    words = ["eval", write(tmp_path / "in.jsonl", rows), "--forward", str(run_folder), "--device", "cpu", "--json"]
    words += ["--judge", server.url, "--judge-model", "m", "--judge-cache", str(cache)]
    for missing in (2, 1):
        cache.unlink(missing_ok=True)
        assert cli.main(words) == missing - 1
        out, err = capsys.readouterr()
        assert [r["value"] for r in json.loads(out) if r["metric"] == "judge_missing"] == [missing]
        assert ("the judge gave no prediction of the forward model a score" in err) == (missing == 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--judge", "http://localhost/v1"], "--judge and --judge-model go together"),
        (["--judge-model", "m"], "--judge and --judge-model go together"),
        (["--judge-requests", "5"], "caps of --judge"),
        (["--judge", "localhost:8000", "--judge-model", "m"], "--judge localhost:8000, expected the base"),
        (["--judge", "http://h/v1", "--judge-model", "m", "--judge-requests", "-1"], "--judge-requests -1, expected 0"),
    ],
)
def test_options_that_cannot_be_are_refused(words, message, capsys):
    assert cli.main(["eval", "in.jsonl", "--forward", "run", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_recording_without_actions_has_nothing_to_compare_with(serve, cache, run_folder, tmp_path, capsys):
    rows = [{"state": "door open", "action": None, "next_state": "door shut", "trajectory": "t", "step": 0}]
    words = ["eval", write(tmp_path / "in.jsonl", rows), "--forward", str(run_folder), "--inverse", str(run_folder)]
    server = serve(by_lamp)
    words += ["--judge", server.url, "--judge-model", "m", "--judge-cache", str(cache), "--device", "cpu"]
    assert cli.main(words) == 2
    assert "leave out --judge" in capsys.readouterr().err
