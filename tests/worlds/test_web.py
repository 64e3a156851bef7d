"""Web pages in a real Chromium: what is read, what actions do, hung pages, safety, and no browser left over."""

import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import ClassVar

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from recorded import records_and_trains

from swirl import worlds
from swirl.data import collect
from swirl.errors import InputError, MissingPartError, SkippedError
from swirl.worlds.base import check_world
from swirl.worlds.web import candidates, missing

here = [pytest.mark.browser, pytest.mark.skipif(missing() is not None, reason=f"no browser to drive: {missing()}")]
browser = lambda test: here[1](here[0](test))  # noqa: E731

FORM = """<title>Form</title><body><p>Give <b>Ada</b> a day.</p>
<label>Name <input id=who></label> <input type=checkbox aria-label=Sure>
<select name=day><option>Monday<option>Tuesday</select>
<button onclick="out.textContent = Math.random() + ' ' + new Date().toISOString()">Go</button>
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
    assert info["page"] == (tmp_path / "form.html").as_uri()
    typed = world.step('type [1] "Ada L"')[0].split("\n")
    lines[2] = '[1] input "Name" = "Ada L" focused'
    assert typed == [*lines[:6], '"late"', lines[6]]  # half a second of the page's time has gone by twice
    assert world.step('type [1] "Bo"')[0].split("\n")[2] == '[1] input "Name" = "Bo" focused'  # in place of it
    assert world.step("click [2]")[0].split("\n")[3] == '[2] checkbox "Sure" checked focused'
    before, *rest = world.step('select [3] "Tuesday"')
    assert before.split("\n")[4].startswith('[3] select "day" = "Tuesday" of')
    assert rest == [0.0, False, False, {}]
    assert world.step('select [3] "Friday"')[0] == before  # no such day
    assert world.step('type [3] "Monday"')[0].replace(" focused", "") == before.replace(" focused", "")  # no text field


@browser
def test_actions_that_are_none_change_nothing(opened, tmp_path):
    world = opened(page(tmp_path, "form.html", FORM))
    with pytest.raises(InputError, match="reset"):
        world.step("click [1]")
    with pytest.raises(InputError, match="reset"):
        world.act("random", np.random.default_rng(0))
    world.reset(3)
    for action, message in {
        "click [9]": "unknown element '9'",
        "click 1": "expected 'click",
        "press [1]": "expected 'click",
        'type [1] "\\q"': "as JSON writes it",
        'type [1] "\\ud800"': "as JSON writes it",
        'click [1]"; alert()': "expected 'click",
    }.items():
        with pytest.raises(InputError, match=message):
            world.step(action)
    assert '"late"' not in world._text.split("\n")
    assert world._counts == {}
    assert '"late"' in world.step("click [2]")[0].split("\n")  # the page's time has gone on for this step alone


@browser
def test_chances_and_the_clock_follow_the_seed(opened, tmp_path):
    world = opened(page(tmp_path, "form.html", FORM))
    drawn = []
    for seed in (3, 3, 4):
        world.reset(seed)
        world.step("click [2]")
        drawn.append(world.step("click [4]")[0].split("\n")[-2].strip('"').split())
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0]
    assert 0 < float(drawn[0][0]) < 1
    # 1,700,000,000 s after 1970 is 22:13:20; the clock stops one second later, and half a second goes by at the opening
    # and at the first click.
    assert [moment for _, moment in drawn] == ["2023-11-14T22:13:22.000Z"] * 3


@browser
def test_nothing_is_kept_from_one_episode_to_the_next(opened, tmp_path):
    kept = "<title>Kept</title><p id=out></p><script>localStorage.n = 1 + Number(localStorage.n ?? 0);"
    world = opened(page(tmp_path, "kept.html", kept + "out.textContent = localStorage.n</script>"))
    assert [world.reset(seed)[0].split("\n")[1] for seed in range(2)] == ['"1"', '"1"']
    assert len(world._browser._chromium.contexts) == 1


@browser
def test_a_task_of_miniwob_ends_with_its_reward(opened):
    world = opened("click-checkboxes")
    state, info = world.reset(0)
    assert info["page"].endswith("/site-packages/miniwob/html/miniwob/click-checkboxes.html")
    assert state.startswith('page "Click Checkboxes Task" click-checkboxes.html\n"Select ')
    wanted = state.split("\n")[1].removeprefix('"Select ').removesuffix(' and click Submit."').split(", ")
    *boxes, button = state.split("\n")[2:]
    assert button == f'[{len(boxes) + 1}] button "Submit"'
    ticked = [number for number, line in enumerate(boxes, 1) if line.split('"')[1] in wanted]
    assert len(ticked) == len(wanted) > 0
    for number in ticked:
        assert world.step(f"click [{number}]")[1:3] == (0.0, False)
    assert world.step(f"click [{len(boxes) + 1}]")[1:] == (1.0, True, False, {})
    with pytest.raises(InputError, match="reset"):
        world.step("click [1]")
    assert world.reset(0)[0] == state
    _, reward, ended, *_ = world.step(f"click [{len(boxes) + 1}]")  # with nothing ticked
    assert ended
    assert reward < 1
    assert world.reset(1)[0] != state


def gone(processes):
    """Whether all of them end."""
    return psutil.wait_procs(processes, timeout=60)[1] == []


@browser
def test_a_hung_page_is_timed_out_counted_and_skipped(tmp_path):
    before = psutil.Process().children(recursive=True)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        dead = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        world = worlds.make("web", pages=[page(tmp_path, "hang.html", HANG), dead], timeout=10)
        with pytest.raises(SkippedError, match=f"{dead} does not open: no answer in 10 seconds"):
            world.reset(1)
        world.reset(0)
        assert world.step("click [2]")[0].endswith('"01"')
        spinning = [child for child in psutil.Process().children(recursive=True) if child not in before]
        with pytest.raises(SkippedError, match=r"click \[1\]: no answer in 10 seconds"):
            world.step("click [1]")
        assert gone(spinning)  # the endless loop is not left running
        with pytest.raises(InputError, match="reset"):
            world.step("click [2]")
    world.pages = world.pages[:1]
    script = iter(["click [2]", "click [1]", "click [2]", "click [2]"])
    family = []

    def act(behaviour, rng):
        family.extend(child for child in psutil.Process().children(recursive=True) if child not in before)
        return next(script)

    world.act = act
    counts = collect(lambda: world, tmp_path / "a.parquet", 3, {"random": 1}, max_steps=2, seed=0)
    assert counts == {"transitions": 3, "trajectories": 2, "layouts": 1, "skipped": 1}
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [(row["trajectory"], row["step"], row["truncated"]) for row in rows] == [
        ("t000000", 0, True),
        ("t000001", 0, False),
        ("t000001", 1, True),
    ]
    assert rows[2]["next_state"].endswith('"011"')
    assert family and gone(family)  # collect closes the world


class Site(http.server.BaseHTTPRequestHandler):
    """A site that counts who knocks; /away leads to the same server under another name, which is another site."""

    knocks: ClassVar[list] = []
    seen: ClassVar[list] = []

    def setup(self):
        self.knocks.append(self.client_address)
        super().setup()

    def answer(self):
        self.seen.append(f"{self.command} {self.path}")
        port = self.server.server_address[1]
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Location", f"http://localhost:{port}/landed")
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        page = f"""<title>Site</title><form method=post action=/post><button>post</button></form><a href=/two>two</a>
            <a href='http://localhost:{port}/other'>other</a><a href='file:///etc/hostname'>file</a>
            <a href=/away>away</a><a href=/two target=_blank>window</a>
            <button onclick="fetch('/sent', {{method: 'POST'}})">send</button>
            <button onclick="alert('stop')">alert</button>"""
        self.wfile.write(page.encode())

    do_GET = do_POST = answer

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    Site.seen, Site.knocks = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@browser
def test_a_url_is_only_read_and_only_on_its_own_site(opened, site):
    world = opened(site)
    state, info = world.reset(0)
    assert info["page"] == site
    kinds = ['[1] button "post"', '[2] a "two"', '[3] a "other"', '[4] a "file"', '[5] a "away"', '[6] a "window"']
    assert state.split("\n") == ['page "Site" /', *kinds, '[7] button "send"', '[8] button "alert"']
    for number in (1, 3, 4, 7, 8):
        after = world.step(f"click [{number}]")[0]
        assert after.replace(" focused", "") == state  # what it may not do does not happen
    assert world.step("click [6]")[0].startswith('page "Site" /\n')
    assert world.step("click [2]")[0].startswith('page "Site" two\n')
    assert len(world._browser._context.pages) == 1  # a window does not stay
    assert {line for line in Site.seen if "favicon" not in line} == {"GET /", "GET /two"}
    with pytest.raises(SkippedError, match=f"{site} led away to http://localhost"):
        world.step("click [5]")
    assert world.reset(0)[0] == state


@browser
def test_a_server_that_is_down_is_said_at_once_and_costs_no_browser_later(opened, site):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    dead = f"http://127.0.0.1:{free}/"
    with pytest.raises(InputError, match=f"^{dead} cannot be reached; start its server, or mend the address$"):
        opened(dead).reset(0)
    world = opened(site, dead)
    world.reset(0)
    chromium = world._browser._chromium
    with pytest.raises(SkippedError, match="ERR_CONNECTION_REFUSED"):
        world.reset(1)
    world.reset(0)
    assert world._browser._chromium is chromium


ATTACKS = """<title>Local</title><p id=out></p>
<script src=own.js></script><script src=../other/secret.js></script><script src=link.js></script>
<script src="SITEx.js"></script><img src="SITEimg"><iframe src="SITEframe"></iframe><link rel=preconnect href="SITE">
<script type=speculationrules>{"prerender": [{"source": "list", "urls": ["SITEprerender"]}]}</script>
<script>
  const site = "SITE", socket = site.replace("http", "ws");
  navigator.sendBeacon(site + "beacon", "x");
  fetch(site + "fetch", {mode: "no-cors", keepalive: true});
  new WebSocket(socket);
  new EventSource(site);
  for (const code of [`fetch("${site}", {mode: "no-cors"})`, `new WebSocket("${socket}")`])
    new Worker(URL.createObjectURL(new Blob([code])));
  const call = new RTCPeerConnection({iceServers: [{urls: "stun:127.0.0.1:PORT"}]});
  call.createDataChannel("x");
  call.createOffer().then((offer) => call.setLocalDescription(offer));
  new WebTransport("https://127.0.0.1:PORT/").ready.catch(() => {});
  open(site + "open");
  fetch("../other/secret.js").then((got) => got.text()).then((text) => { document.title = text; });
</script>
<button onclick="location = site + 'leave'">leave</button>
<button onclick="location = '../other/secret.js'">file</button>
<button onclick="location = './'">list</button>"""


@browser
def test_a_local_page_reaches_neither_the_network_nor_other_folders(opened, site, tmp_path):
    secret = page(tmp_path / "other", "secret.js", "document.title = 'read the secret'")
    page(tmp_path / "own", "own.js", "out.textContent = 'own'")
    (tmp_path / "own" / "link.js").symlink_to(secret)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        datagrams.setblocking(False)
        text = ATTACKS.replace("SITE", site).replace("PORT", str(datagrams.getsockname()[1]))
        world = opened(page(tmp_path / "own", "local.html", text))
        state, _ = world.reset(0)
        lines = ['"own"', '[1] button "leave"', '[2] button "file"', '[3] button "list"']
        assert state.split("\n") == ['page "Local" local.html', *lines]
        for number in (1, 2):
            assert world.step(f"click [{number}]")[0].replace(" focused", "") == state
        listing = world.step("click [3]")[0]  # the folder's own list, and no way up from it
        assert listing.startswith('page "Index of ')
        assert "local.html" in listing
        assert world.step("click [1]")[0].replace(" focused", "") == listing.replace(" focused", "")
        time.sleep(1)  # what goes out by itself
        world.step("click [2]")
        assert (Site.seen, Site.knocks) == ([], [])
        with pytest.raises(BlockingIOError):
            datagrams.recv(1)


@browser
def test_a_page_that_goes_up_a_folder_at_once_does_not_widen_what_it_may_read(opened, tmp_path):
    page(tmp_path, "secret.html", "<title>secret</title>")
    world = opened(page(tmp_path / "own", "up.html", "<title>Up</title><script>location = './'</script>"))
    state, _ = world.reset(0)
    assert '[1] a "[parent directory]"' in state.split("\n")
    assert world.step("click [1]")[0].replace(" focused", "") == state


@browser
def test_a_local_page_that_leaves_for_an_empty_one_breaks_the_episode_off(opened, tmp_path):
    world = opened(
        page(tmp_path, "gone.html", "<title>Gone</title><a href='about:blank'>away</a><a href='#x'>here</a>")
    )
    world.reset(0)
    assert world.step("click [2]")[0].startswith('page "Gone" gone.html')
    with pytest.raises(SkippedError, match=r"gone\.html led away to about:blank"):
        world.step("click [1]")


@browser
def test_a_huge_page_is_read_no_further_than_it_is_kept(opened, tmp_path):
    text = "<title>Long</title>" + "".join(f"<p>{n}</p><button>b{n}</button>" for n in range(20_000))
    world = opened(page(tmp_path, "long.html", text))
    lines = world.reset(0)[0].split("\n")
    assert lines[:3] == ['page "Long" long.html', '"0"', '[1] button "b0"']
    assert (len(lines), lines[-1]) == (151, "… more lines")  # the 150 that are kept
    read = world._browser._within(10, world._browser._evaluate("__swirl.read()"), "read")["lines"]
    assert len(read) == 150


CHILD = """
import signal
import sys
from swirl import worlds
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
world = worlds.make("web", pages=sys.argv[1:], timeout=600)
world.reset(0)
print("open", flush=True)
world.step("click [1]")
"""


@browser
@pytest.mark.parametrize("ending", ["Ctrl-C", "SIGKILL"])
def test_no_browser_outlives_its_process(tmp_path, ending):
    command = [sys.executable, "-c", CHILD, page(tmp_path, "hang.html", HANG)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        assert child.stdout is not None
        opened = child.stdout.readline()
        time.sleep(1)  # in the midst of the page's endless loop
        family = psutil.Process(child.pid).children(recursive=True)
        names = {process.name()[:4] for process in family}
        if ending == "Ctrl-C":
            os.killpg(child.pid, signal.SIGINT)  # a terminal sends it to the whole group
            threading.Timer(60, child.kill).start()
        else:
            child.kill()
        try:
            _, stderr = child.communicate(timeout=60)
        finally:
            child.kill()
    assert opened == "open\n"
    assert {"node", "chro"} <= names  # Playwright's driver, and Chromium
    assert gone(family)
    assert child.returncode == (-signal.SIGINT if ending == "Ctrl-C" else -signal.SIGKILL), stderr


def test_what_the_behaviours_can_do():
    elements = '[1] input "a" = ""\n[2] select "s" = "x" of "x" "y z"\n[3] button "Go"'
    state = 'page "P" p.html\n"Enter \\"Ada\\" here"\n' + elements
    assert candidates(state) == [
        ['type [1] "Ada"', 'type [1] "Enter"', 'type [1] "here"'],
        ['select [2] "x"', 'select [2] "y z"'],
        ["click [3]"],
    ]
    assert candidates('page "P" p.html\n"Add 7 and x"\n[1] number "n" = ""') == [['type [1] "7"']]


CONTROLS = """<title>Controls</title>
<input type=date name=day><input type=time name=hour><input type=datetime-local name=moment>
<input type=month name=month>
<input type=week name=week><input type=color name=paint><input type=number name=count>
<input type=range name=volume><input type=range name=level min=-1 max=1 step=0.5 value=0>
<div contenteditable=true aria-label=note></div>"""


@browser
def test_every_control_takes_what_the_behaviours_give_it(opened, tmp_path):
    world = opened(page(tmp_path, "controls.html", CONTROLS + "<p>word</p>"))
    state, _ = world.reset(0)
    lines = state.split("\n")[1:-1]
    assert lines[7] == '[8] range "volume" = "50" of "0" "25" "50" "75" "100"'
    assert lines[8] == '[9] range "level" = "0" of "-1" "-0.5" "0" "0.5" "1"'
    assert lines[9] == '[10] textbox "note" = ""'
    options = candidates(state)
    assert [len(actions) for actions in options] == [3, 3, 2, 3, 2, 3, 3, 5, 5, 1]
    for number, actions in enumerate(options):
        for action in actions:
            value = action.partition("] ")[2]
            after = world.step(action)[0].split("\n")[1 + number]
            assert f" = {value}" in after, (action, after)


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
    monkeypatch.setattr("swirl.worlds.web.find_spec", lambda name: True)
    assert worlds.availability("web") == "apt-get install chromium"
    monkeypatch.setattr("swirl.worlds.web.find_spec", lambda name: None)
    command = "pip install '.[web]' && apt-get install chromium"
    assert worlds.availability("web") == command
    with pytest.raises(MissingPartError, match=re.escape(command)):
        worlds.make("web")


@browser
def test_a_recording_is_checked_and_trained_on(swirl, tmp_path):
    options = ["--option", 'pages=["login-user", "enter-password"]', "--transitions", "60", "--max-steps", "6"]
    assert "60 transitions" in records_and_trains(swirl, tmp_path, "web", *options)
