"""Web pages in a real Chromium: what is read, what actions do, hung pages, safety, and no browser left over."""

import contextlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from typing import ClassVar

import psutil
import pyarrow.parquet as pq
import pytest
from recorded import records_and_trains

from swirl import worlds
from swirl.data import collect
from swirl.errors import InputError, MissingPartError, SkippedError
from swirl.worlds.base import check_world
from swirl.worlds.web import INSTALL, candidates, missing

here = [pytest.mark.browser, pytest.mark.skipif(missing() is not None, reason=f"no browser to drive: {INSTALL}")]
browser = lambda test: here[1](here[0](test))  # noqa: E731

FORM = """<title>Form</title><body><p>Give <b>Ada</b> a day.</p>
<label>Name <input id=who></label> <input type=checkbox aria-label=Sure>
<select name=day><option>Monday<option>Tuesday</select>
<button onclick="document.title = who.value; out.textContent = who.value + ' ' + Math.random()">Go</button>
<div id=out></div><div style="display:none">secret</div><span style="cursor:pointer">more</span>
<script>setTimeout(() => { out.textContent = 'late' }, 700)</script>"""
HANG = """<title>Hang</title><button onclick="while (true) {}">hang</button>
<button onclick="out.textContent += 1">count</button><p id=out>0</p>"""


def page(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Opens one page after another in few browsers."""
    made = []

    def make(*pages, **options):
        made.append(worlds.make("web", pages=pages, **options))
        return made[-1]

    yield make
    for world in made:
        world.close()


@browser
def test_the_contract_holds(opened):
    check_world(opened("choose-list", "enter-text"), seeds=range(2), steps=3)


@browser
def test_a_form_is_read_and_acted_on(opened, tmp_path):
    world = opened(page(tmp_path, "form.html", FORM))
    state, info = world.reset(3)
    lines = [
        'page "Form" form.html',
        '"Give Ada a day."',
        '[1] input "Name" = ""',
        '[2] checkbox "Sure" unchecked',
        '[3] select "day" = "Monday" of "Monday" "Tuesday"',
        '[4] button "Go"',
        '[5] span "more"',
    ]
    assert state.split("\n") == lines
    assert info["page"].startswith("file:///")
    after = world.step('type [1] "Ada L"')[0].split("\n")
    assert after[2] == '[1] input "Name" = "Ada L" focused'
    assert '"late"' in after  # half a second of the page's time has gone by twice
    assert world.step("click [2]")[0].split("\n")[3] == '[2] checkbox "Sure" checked focused'
    assert world.step('select [3] "Tuesday"')[0].split("\n")[4].startswith('[3] select "day" = "Tuesday" of')
    drawn, *rest = world.step("click [4]")
    assert rest == [0.0, False, False, {}]
    assert 'page "Ada L" form.html' in drawn
    assert '"Ada L 0.' in drawn
    before = world._text
    for action, message in {
        "click [9]": "unknown element '9'",
        "click 1": "expected 'click",
        "press [1]": "expected 'click",
        'type [1] "\\q"': "as JSON writes it",
    }.items():
        with pytest.raises(InputError, match=message):
            world.step(action)
    assert world._text == before
    assert world.step('select [3] "Friday"')[0] == world._text  # no such day
    world.reset(3)
    world.step('type [1] "Ada L"')
    assert world.step("click [4]")[0].split("\n")[-2] == drawn.split("\n")[-2]  # chances follow the seed


@browser
def test_a_task_of_miniwob_ends_with_its_reward(opened):
    world = opened("click-checkboxes")
    state, _ = world.reset(0)
    assert state.startswith('page "Click Checkboxes Task" click-checkboxes.html\n"Select ')
    wanted = state.split("\n")[1].removeprefix('"Select ').removesuffix(' and click Submit."').split(", ")
    for number, line in enumerate(state.split("\n")[2:], 1):
        if any(f'checkbox "{name}"' in line for name in wanted):
            world.step(f"click [{number}]")
    *_, info = world.step(f"click [{number}]")
    assert info == {}
    assert not world._running
    world.reset(0)
    assert world.step(f"click [{number}]")[1:3] != (1.0, True)


@browser
def test_a_hung_page_is_timed_out_counted_and_skipped(tmp_path):
    before = psutil.Process().children(recursive=True)
    world = worlds.make("web", pages=[page(tmp_path, "hang.html", HANG)], timeout=10)
    world.reset(0)
    world.step("click [2]")
    with pytest.raises(SkippedError, match=r"click \[1\] hangs: no answer in 10 seconds"):
        world.step("click [1]")
    with pytest.raises(InputError, match="reset"):
        world.step("click [2]")
    script = iter(["click [2]", "click [1]", "click [2]", "click [2]"])
    world.act = lambda behaviour, rng: next(script)
    counts = collect(lambda: world, tmp_path / "a.parquet", 3, {"random": 1}, max_steps=2, seed=0)
    assert counts == {"transitions": 3, "trajectories": 2, "layouts": 1, "skipped": 1}
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [(row["trajectory"], row["step"], row["truncated"]) for row in rows] == [
        ("t000000", 0, True),
        ("t000001", 0, False),
        ("t000001", 1, True),
    ]
    assert rows[2]["next_state"].endswith('"011"')
    world.close()
    new = [child for child in psutil.Process().children(recursive=True) if child not in before]
    _, alive = psutil.wait_procs(new, timeout=60)
    assert alive == []


class Site(http.server.BaseHTTPRequestHandler):
    seen: ClassVar[list] = []

    def answer(self):
        self.seen.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(
            b"<title>Site</title><form method=post action=/post><button>post</button></form><a href=/two>two</a>"
            b"<a href='http://localhost:1/'>away</a><a href='file:///etc/hostname'>file</a>"
        )

    do_GET = do_POST = answer

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    Site.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@browser
def test_a_url_is_only_read_and_a_local_page_reaches_neither_network_nor_other_folders(opened, site, tmp_path):
    page(tmp_path / "other", "secret.js", "document.title = 'read the secret'")
    page(tmp_path / "own", "own.js", "out.textContent = 'own'")
    local = (
        f"<title>Local</title><p id=out></p><script src=own.js></script><script src=../other/secret.js></script>"
        f"<script src='{site}x.js'></script><button onclick=\"location='{site}leave'\">leave</button>"
    )
    world = opened(page(tmp_path / "own", "local.html", local), site)
    state, _ = world.reset(0)
    assert state.split("\n") == ['page "Local" local.html', '"own"', '[1] button "leave"']
    world.step("click [1]")
    assert Site.seen == []
    state, _ = world.reset(1)
    assert state.split("\n")[1:] == ['[1] button "post"', '[2] a "two"', '[3] a "away"', '[4] a "file"']
    assert 'page "Site" two' in world.step("click [2]")[0]
    for action in ("click [1]", "click [3]", "click [4]"):
        world.reset(1)
        with contextlib.suppress(SkippedError):  # where Chromium shows its own page of the error
            world.step(action)
    assert {line for line in Site.seen if "favicon" not in line} == {"GET /", "GET /two"}


CHILD = """
import sys
from swirl import worlds
world = worlds.make("web", pages=sys.argv[1:], timeout=600)
world.reset(0)
print("open", flush=True)
world.step("click [1]")
"""


@browser
def test_no_browser_outlives_a_killed_process(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, page(tmp_path, "hang.html", HANG)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    time.sleep(1)  # in the midst of the page's endless loop
    family = psutil.Process(child.pid).children(recursive=True)
    assert any("chrom" in process.name() for process in family)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []


def test_what_the_behaviours_can_do():
    elements = '[1] input "a" = ""\n[2] select "s" = "x" of "x" "y z"\n[3] button "Go"'
    state = 'page "P" p.html\n"Enter \\"Ada\\" here"\n' + elements
    assert candidates(state) == [
        ['type [1] "Ada"', 'type [1] "Enter"', 'type [1] "here"'],
        ['select [2] "x"', 'select [2] "y z"'],
        ["click [3]"],
    ]


@browser
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pages": ["login-usr"]}, "did you mean 'login-user'"),
        ({"pages": []}, "expected a page or more"),
        ({"timeout": 0}, "and some seconds"),
        ({"pages": ["file:///etc/passwd"]}, "unknown page"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(InputError, match=message):
        worlds.make("web", **options)


def test_a_missing_browser_names_the_commands(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert worlds.availability("web") == INSTALL
    with pytest.raises(MissingPartError, match="apt-get install -y chromium"):
        worlds.make("web")


@browser
def test_a_recording_is_checked_and_trained_on(swirl, tmp_path):
    options = ["--option", 'pages=["choose-list", "enter-text"]', "--transitions", "70", "--max-steps", "4"]
    assert "70 transitions" in records_and_trains(swirl, tmp_path, "web", *options)
