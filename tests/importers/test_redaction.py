import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.importers.redaction import redact

BLOCK = "-----BEGIN PRIVATE KEY-----\nMIIEvQ-IBAD/+\nabcd==\n-----END PRIVATE KEY-----"
ENCRYPTED = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIE\n-----END RSA PRIVATE KEY-----"
PGP = "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: x\n\nlQOY\n=abcd\n-----END PGP PRIVATE KEY BLOCK-----"
HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("key sk-proj-abcdefghijklmnopqrst end", "key [REDACTED] end"),
        ("ghp_" + "a1" * 18, "[REDACTED]"),
        ("AKIAIOSFODNN7EXAMPLE.", "[REDACTED]."),
        (r'"x\nAKIAIOSFODNN7EXAMPLE\nsk-abcdefghijklmnop1234"', r'"x\n[REDACTED]\n[REDACTED]"'),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSM", "[REDACTED]"),
        ("SG.ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf-09kqeF8tAmb", "[REDACTED]"),
        ("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", "[REDACTED]"),
        ("bot 110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw", "bot [REDACTED]"),
        ("MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs", "[REDACTED]"),
        ("https://hooks.slack.com/services/T0/B0/XXXXXXXXXXXXXX", "https://hooks.slack.com/services/[REDACTED]"),
        ("a" * 20 + "B1" * 15, "[REDACTED]"),
        ("curl -H 'X: bearer abcdefgh12345'", "curl -H 'X: bearer [REDACTED]'"),
        ("curl -u mia:hunter22 https://x", "curl -u mia:[REDACTED] https://x"),
        ("postgres://bob:p@ssw0rd!@db/x", "postgres://bob:[REDACTED]@db/x"),
        ("redis://:hunter22@host:6379", "redis://:[REDACTED]@host:6379"),
        (
            "https://mia:hunter22@host/x?access_token=abcd&x=1",
            "https://mia:[REDACTED]@host/x?access_token=[REDACTED]&x=1",
        ),
    ],
)
def test_what_its_form_gives_away(text, masked):
    found, count = redact(text)
    assert found == masked and count == masked.count("[REDACTED]")
    assert redact(found) == (found, 0)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ('{"api_key": "abcd1234", "user": "mia"}', '{"api_key": "[REDACTED]", "user": "mia"}'),
        ('{"password": "correct horse battery staple", "a": 1}', '{"password": "[REDACTED]", "a": 1}'),
        (r"{\"password\": \"say \\\"hunter22\\\"\", \"a\": 1}", r"{\"password\": \"[REDACTED]\", \"a\": 1}"),
        ('{"password": "abc"}', '{"password": "[REDACTED]"}'),
        ("{'password': 'it\\'s me', 'a': 1}", "{'password': '[REDACTED]', 'a': 1}"),
        ('{"token": 123456789012, "pin":9921,"x":1}', '{"token": "[REDACTED]", "pin":"[REDACTED]","x":1}'),
        ('{"otp": "482913", "cvv": "123"}', '{"otp": "[REDACTED]", "cvv": "[REDACTED]"}'),
        ('{"pwd": "hunter2hunter", "csrfToken": "abcdef"}', '{"pwd": "[REDACTED]", "csrfToken": "[REDACTED]"}'),
        ('"x-rapidapi-key": "SIGN-UP-FOR-KEY"', '"x-rapidapi-key": "[REDACTED]"'),
        ('{"toolbench_key": "abcdEFGH1234"}', '{"toolbench_key": "[REDACTED]"}'),
        (r'"DB_PASS=p&ss,w0rd\nPWD=/home/mia"', r'"DB_PASS=[REDACTED]\nPWD=/home/mia"'),
        ("Name=a;AccountKey=Eby8vdM0/2xN==;Suffix=x", "Name=a;AccountKey=[REDACTED];Suffix=x"),
        ("?sv=2020&sig=abcdef%2Fghij3klmnop%3D", "?sv=2020&sig=[REDACTED]"),
        (f"X-Amz-Signature={HEX}&x=1", "X-Amz-Signature=[REDACTED]&x=1"),
        (f"key: {HEX}", "key: [REDACTED]"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: [REDACTED]"),
        ("Cookie: a=1; session=QWERTY\nHost: x", "Cookie: [REDACTED]\nHost: x"),
        ('{"Cookie": "a=1; session=QWERTY"}', '{"Cookie": "[REDACTED]"}'),
        ('{"name": "api_key", "value": "abcd1234"}', '{"name": "api_key", "value": "[REDACTED]"}'),
        ('<input type="password" name="p" value="x y">', '<input type="password" name="p" value="[REDACTED]">'),
        ("<password>hunter 22</password>", "<password>[REDACTED]</password>"),
        ("mysql --password hunter33 --db x", "mysql --password [REDACTED] --db x"),
        ("my password is hunter22, my PIN is 1234", "my password is [REDACTED], my PIN is [REDACTED]"),
        ("The API key is: 'a b'", "The API key is: '[REDACTED]'"),
        ("user[password]=hunter22&a=1", "user[password]=[REDACTED]&a=1"),
    ],
)
def test_what_its_name_gives_away(text, masked):
    test_what_its_form_gives_away(text, masked)


@pytest.mark.parametrize("key", [BLOCK, ENCRYPTED, PGP])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_private_key_goes_whole(key, depth):
    text, masked = json.dumps({"private_key": key}), json.dumps({"private_key": "[REDACTED]"})
    for _ in range(depth):
        text, masked = json.dumps({"a": text}), json.dumps({"a": masked})
    assert redact(text) == (masked, 1) and redact(f"a {key} b") == ("a [REDACTED] b", 1)
    assert redact(key.split("-----END")[0]) == ("[REDACTED]", 1)


def test_a_private_key_that_was_cut_goes_up_to_the_end_of_its_string():
    text = json.dumps({"a": BLOCK[:50], "b": 1})
    assert redact(text) == ('{"a": "[REDACTED]", "b": 1}', 1)


@pytest.mark.parametrize(
    "text",
    [
        "get_user_details {\"user_id\": \"mia_li_3668\"}",
        "commit 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
        "id 123e4567-e89b-12d3-a456-426614174000",
        '"token": null, "total_tokens": 4270, "tokens: 12345", "password": true, "next_page_token": "CAUQAA"',
        '{"password": "required", "api_key": "string", "secret": "<your-key>", "token": "${TOKEN}"}',
        '{"password": {"type": "string"}, "text": "Enter password:", "b": "Your \\"token\\":"}',
        "the secret of a good password is its length",
        "token limit, password reset page, the secret of success, the password is required",
        "Password:\n\nForgot password?",
        "PASS: tests/one\nPWD=/home/mia, pass: 12, 12 passed",
        "login(password=password, token=get_token(1), secret=self.secret, hf_raise_for_status_of_all)",
        "docker run -u 1000:1000, Basic requirements, a basic understanding",
        "primary_key: customer_identifier, monkey: banana, pinned: 1234, author: mia",
        "https://example.com:8080/path/To/Some1/Very/Long/Page/Name/With/Numbers/2024",
        "http://example.com:80?mail=mia@example.com",
        "Some_Long_Title_of_a_Page_With-Numbers-2024-And-Words",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    ],
)  # fmt: skip
def test_what_is_not(text):
    assert redact(text) == (text, 0)


NAMES = ["password", "apiKey", "DB_PASS", "client_secret", "Authorization", "private_key", "Cookie", "pwd"]
WILD = st.text(st.sampled_from("ab1 \"'\\\n,:;=&{}[]()<>-/@é") | st.characters(), max_size=12)
SECRET = st.builds("Zq7{}x9Kv".format, WILD)
LEAF = WILD | st.integers() | st.booleans() | st.none()
PROSE = st.builds(lambda a, name, b: f"{a} {name}{b}", WILD, st.sampled_from(NAMES), WILD)
TREE = st.recursive(LEAF | PROSE, lambda inner: st.lists(inner) | st.dictionaries(WILD | PROSE, inner), max_leaves=8)


def of_keys(value):
    return (
        [value] if not isinstance(value, dict) else [*value, *(key for item in value.values() for key in of_keys(item))]
    )


@given(
    before=TREE,
    named=st.dictionaries(st.sampled_from(NAMES), SECRET | st.sampled_from([BLOCK, ENCRYPTED, PGP]), min_size=1),
    after=TREE,
    depth=st.integers(0, 3),
    ascii_only=st.booleans(),
)
def test_json_stays_json_and_keeps_no_named_secret(before, named, after, depth, ascii_only):
    text = json.dumps({"before": before, "named": named, "after": after}, ensure_ascii=ascii_only)
    for _ in range(depth):
        text = json.dumps({"inner": text})
    found, count = redact(text)
    assert redact(found) == (found, 0) and count >= len(named)
    for _ in range(depth):
        found = json.loads(found)["inner"]
    assert json.loads(found)["named"] == dict.fromkeys(named, "[REDACTED]")


@given(TREE, st.sampled_from([None, 2]))
def test_json_stays_json_whatever_it_says(value, indent):
    text = json.dumps(json.dumps(value, indent=indent))
    found, _ = redact(text)
    json.loads(json.loads(found))
    assert redact(found) == (found, 0)


PIECES = (
    "password token key = : \" ' \\ a1 , @ :// [REDACTED] AKIAIOSFODNN7EXAMPLE < > -- & . value is cookie ( ) -u { }"
)


@given(st.lists(st.sampled_from([*PIECES.split(), " ", "\n", BLOCK[:27], "-----END"])).map("".join))
def test_masking_again_changes_nothing(text):
    found, _ = redact(text)
    assert redact(found) == (found, 0)


HOSTILE = """
import base64, random
from swirl.importers.redaction import redact
random.seed(0)
long = base64.urlsafe_b64encode(random.randbytes(700_000)).decode()
short = ("a-", "A1b-", "-eyJaaaaaaaaa", "://a:", "token=", "key=", ".api_key=", "password='<", "key='a", "password is ",
    "-----BEGIN PRIVATE KEY-----[")
for text in short:
    redact(text * (1_000_000 // len(text)) + "x.api_key")
for text in ("https://x.y/" + long, long, "password" + " " * 1_000_000, "token='" + "\\\\" * 1_000_000):
    redact(text)
"""


def test_the_time_is_linear_in_the_text():
    """Over 10 MB take seconds; quadratic, each of these texts would take hours."""
    subprocess.run([sys.executable, "-c", HOSTILE], check=True, timeout=240)
