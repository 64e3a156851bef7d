r"""Masks what looks like a key, a token or a password, so that a log can be learned from without teaching it.

Each pass takes time linear in the text: private key blocks, passwords of URLs and of curl's -u, values beside a name
such as `api_key`, and keys that say what they are by their form. It errs on the side of masking. JSON stays JSON, at
whatever depth of escaping: a value keeps its quotes, and a number becomes a text. What it does not find:

- A hash of hex digits without a name: commits, digests and identifiers look the same, and are commoner in logs.
- A secret without a name or a known form: `mysql -pX`, an AWS secret alone, key lines without their BEGIN line.
- Names in other languages; a name after its value, as in `value="X" type="password"`; the items of a list or a tuple.
- The rest of a value without quotes after a space, a quote or a bracket, and of a quoted one after a line break.
- What looks like a placeholder (`null`, `<your-key>`), a call (`get_token()`) or a page's token.
- Card numbers, names and other personal data.
"""

import re
from functools import lru_cache

MASK = "[REDACTED]"
_ESCAPED = r"(?<=\\[bfnrt])|(?<=\\u[0-9a-fA-F]{4})|(?<=%[0-9a-fA-F]{2})"  # a word may start behind these,
_INSIDE = r"(?<!\\(?=[bfnrtu]))"  # and not with the letter of one
_START = rf"(?:(?<![\w-]){_INSIDE}|{_ESCAPED})"
_FORMS = (
    r"sk-[\w-]{16,}",  # OpenAI, Anthropic
    r"[rs]k_(?:live|test)_\w{10,}",  # Stripe
    r"gh[opusr]_\w{20,}|github_pat_\w{20,}",
    r"glpat-[\w-]{16,}",  # GitLab
    r"(?:hf|gsk|r8|npm|lin_api|shp(?:at|ss)|dop_v1)_[A-Za-z0-9]{16,}",  # as their names say
    r"pypi-[\w-]{16,}",
    r"xox[abeoprs]-[\w-]{10,}",  # Slack
    r"(?:AKIA|ASIA)[A-Z0-9]{12,}",  # AWS
    r"AIza[\w-]{20,}|ya29\.[\w-]{16,}|GOCSPX-[\w-]{20,}",  # Google
    r"SG\.[\w-]{16,}+\.[\w-]{16,}",  # SendGrid
    r"(?:bot)?\d{8,10}:[\w-]{30,}",  # Telegram
    r"[MNO][\w-]{22,27}\.[\w-]{6}\.[\w-]{27,}",  # Discord
    r"eyJ[\w-]{8,}+\.[\w-]{8,}+\.",  # a JSON web token
)
_FORM = re.compile(
    rf"{_START}(?:{'|'.join(_FORMS)})[\w-]*+"
    r"|(?P<hook>hooks\.slack\.com/services/|discord(?:app)?\.com/api/webhooks/\d{1,20}/)[\w/-]{16,}+"
    rf"|(?P<scheme>{_START}(?i:bearer|basic)[ ]++)(?P<key>[\w+/=.~-]{{12,}}+)"
    rf"|(?:(?<![\w/.+-]){_INSIDE}|{_ESCAPED})(?P<long>[\w-]{{40,}}+)(?![./])",
    re.ASCII,
)
_MIXED = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9]).{12}")
_LIKELY = re.compile(r"[\d=]|[a-z][A-Z]")  # credentials, not "basic requirements"
_BLOCK = re.compile(  # to the END line; without one to where the text, or the string around it, ends
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:(?!-----(?:BEGIN|END))[^{}\[\]])*+-----END[A-Z0-9 ]{0,60}+-*+|(?:[^\"'\\]|\\++(?![\"'\\]))*+)"
)
_URL = re.compile(r"(://[^\s/:@\"'\\<>]*+:)(?:(?:(?!\[REDACTED\])[^\s/?@\"'\\<>])*+@)++")
_USER = re.compile(r"((?<![\w-])(?:-u|--user)[ =][\"']?[^\s:\"'\\]{1,64}+:)(?!\d+\b|\[REDACTED)[^\s\"'\\]++")  # curl's

_ANY = re.compile(r".+", re.DOTALL)
_RANDOM = re.compile(r"(?=\D*+\d)(?=[^A-Za-z]*+[A-Za-z])[\w+/=%.~-]{16,400}", re.ASCII)
_NAMES = tuple(  # the ends of names, and what their values look like; the first that fits
    (re.compile(rf"(?:{end})$"), value)
    for end, value in (
        (r"(?:page|next|sync|continuation)_?token", None),
        (r"(?:api|access|secret|private|account|shared|signing|encryption|master|auth|admin|client)_?key", _ANY),
        (r"(?:consumer|subscription|toolbench|storage|service|app)_?key|secret_?key_?base", _ANY),
        (r"secret|passw(?:or)?d(?:_?hash)?|passphrase|passcode|credentials?|authorization|^x_auth\w*|cookie", _ANY),
        (r"(?:_|access|auth|refresh|bearer|id|session|csrf|xsrf|middleware)token|^(?:csrf|xsrf)", _ANY),
        (r"(?:^|_)(?:pwd|pw)", re.compile(r"(?![/~]).+")),  # in a shell's environment PWD is a folder
        (r"(?:^|_|db|user|root|admin|smtp)pass", re.compile(r"(?![\d./%]+$).{4,}")),  # not a count of tests
        (r"^token", re.compile(r".{6,}|.*\d.*", re.DOTALL)),  # not a coin's
        (r"(?:^|_)(?:otp|totp|pin|cvv|cvc)|(?:security|verification|auth|login)_?code", re.compile(r"\d{3,8}")),
        (r"(?:^|_)sig|signature|sess(?:ion)?_?id", _RANDOM),
        (r"(?:^|_)key", re.compile(r"(?=\D*+\d)(?=[^A-Za-z]*+[A-Za-z])[A-Za-z0-9]{32,400}")),
    )
)
_PAIR = re.compile(
    r"(?<![\w-])(?:--(?P<flag>[\w-]{1,100}+)[ ]++(?=[^\s-])"
    r"|(?P<name>[\w-]{1,100}+(?:[ ](?i:key|code)(?![\w-]))?)(?:\]|%5[Dd])?(?::?(?P<quote>\\{0,31}[\"'`]))?"
    r"(?:[ \t]*+(?:[:=]=?=?>?)\s*+|(?P<said>[ ]++(?:is|was)(?:[ ]*+:)?[ ]++)|(?P<tag>>(?=[^\s<]))))",
    re.ASCII,
)
_ESCAPE = re.compile(r"u[0-9a-fA-F]{4}|[bfnrt]")
_OPENING = re.compile(r"((?:\\|\\{3}|\\{7}|\\{15}|\\{31})?)([\"'`])")
_ENDS = r"\s*+(?:[,:;}\])]|\\++[nr]|\Z)"  # what follows a quote that closes
_CLOSING = re.compile(_ENDS)
_COOKIE = re.compile(r"(?!\[REDACTED\])[^\s\"'\\=;]{1,200}+=[^\"'\\\r\n]*+")
_ELEMENT = re.compile(r"[^<>\"\\\r\n]{1,1000}+(?=</)")
_BARE = re.compile(
    r"(?!\[REDACTED)(?:(?i:bearer|basic|digest|token|apikey)[ ]++(?!\[REDACTED))?"
    r"(?:[^\s\"'`\\,;&<>(){}\[\]]++|\\++u[0-9a-fA-F]{4}|[,;&](?=[\w!@#$%^*+.~-])(?![\w.-]{1,64}+[\"']?[=:]))++"
)
# What is no value: a call, or the next name.
_CODE = re.compile(r"[A-Za-z_][\w.]{0,99}+(?:\([^)\n]{0,99}\)|\[[^\]\n]{0,99}\])|[\w.-]{0,99}:(?=\s)")
_SAID = re.compile(r"\d{4,}|(?=.*\d)(?=.*[A-Za-z]).{4,256}")  # "the password is X", not "is too short"
_HARMLESS = re.compile(
    r"(?i:null|none|nil|nan|true|false|undefined|required|optional|string|str|bool|int|bytes|bearer|basic|include|omit|same-origin)"
    r"|\*+|\.+|<[\w|.-]{0,15}>|\$\{\w{1,15}\}|\$[A-Z_]{1,15}|\[REDACTED\](?:\\+[nr])*"
)
_LABELS, _REACH = {"name", "key", "type", "id", "field", "header"}, 200  # of `"name": "api_key", "value": "X"`
_WINDOW = 512  # characters of a value that are read before it is known to be one


def redact(text: str) -> tuple[str, int]:
    """The text with its secrets as `[REDACTED]`, and how many there were. Masking again changes nothing."""
    text, blocks = _BLOCK.subn(MASK, text)
    text, urls = _URL.subn(rf"\g<1>{MASK}@", text)
    text, users = _USER.subn(rf"\g<1>{MASK}", text)
    text, pairs = _mask_pairs(text)
    forms = 0

    def mask(match: re.Match[str]) -> str:
        nonlocal forms
        if match["key"] and not _LIKELY.search(match["key"]):
            return match[0]
        if match["long"] and not any(_MIXED.match(part) for part in re.split("[-_]", match["long"])):
            return match[0]
        forms += 1
        return (match["hook"] or match["scheme"] or "") + MASK

    text = _FORM.sub(mask, text)
    return text, blocks + urls + users + pairs + forms


def _mask_pairs(text: str) -> tuple[str, int]:
    parts, done, position, count = [], 0, 0, 0
    label, label_end = "", 0
    while pair := _PAIR.search(text, position):
        position = pair.end()
        name = pair["flag"] or pair["name"]
        near = name.lower() == "value" and position - label_end < _REACH
        if near and not re.search("[{}<>]", text[label_end:position]):
            name = label
        wanted = _wanted(name)
        if wanted is None and text[pair.start() - 1 : pair.start()] == "\\" and (escape := _ESCAPE.match(name)):
            wanted = _wanted(name[escape.end() :])
        if wanted is None and name.lower() not in _LABELS:
            continue
        start, end, quotes = _value(text, pair, len(text) if wanted is _ANY else position + _WINDOW)
        if name.lower() in _LABELS and end - start < _REACH and _wanted(text[start:end]):
            label, label_end = text[start:end], end
        if wanted and wanted.fullmatch(text, start, end) and not _HARMLESS.fullmatch(text, start, end):
            if end - position > _WINDOW - 100:  # it is masked: nothing of it is read again
                start, end, quotes = _value(text, pair, len(text))
            parts += [text[done:start], quotes, MASK, quotes]
            done = position = end
            count += 1
    return "".join([*parts, text[done:]]), count


@lru_cache(4096)
def _wanted(name: str) -> re.Pattern[str] | None:
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[- ]", "_", name).lower().strip("_")
    return next((value for end, value in _NAMES if end.search(name)), None)


def _value(text: str, pair: re.Match[str], limit: int) -> tuple[int, int, str]:
    """Where the value beside a name starts and ends (the same: there is none), and the quotes it lacks."""
    at, quote = pair.end(), pair["quote"] or ""
    opening = _OPENING.match(text, at, limit)
    if pair["tag"]:
        found = _ELEMENT.match(text, at, limit) if text[pair.start() - 1] in "<:" else None
    elif opening and (opening[0] == quote or not _CLOSING.match(text, opening.end())):
        found = _quoted(len(opening[1]), opening[2]).match(text, opening.end(), limit)
        quote = ""
    elif pair["name"] and pair["name"].lower().endswith("cookie"):
        found = _COOKIE.match(text, at, limit)
    else:
        found = _BARE.match(text, at, limit)
        if (found and _doubtful(found[0], pair)) or _CODE.match(text, at, limit):
            found = None
    return (found.start(), found.end(), quote) if found else (at, at, "")


def _doubtful(value: str, pair: re.Match[str]) -> bool:
    """Whether a value without quotes is rather a word of a sentence, a test's result, or a variable named alike."""
    if pair["said"]:
        return not _SAID.fullmatch(value)
    if pair["name"] == "PASS" and ":" in pair[0]:
        return True
    if "\n" in pair[0] and not re.search(r"\d", value):
        return True
    short = len(value) < 4 and "=" not in pair[0] and not value.isdigit()
    owner, _, last = value[-200:].rpartition(".")
    alike = last.lower() == (pair["flag"] or pair["name"]).lower() or (owner.isidentifier() and _wanted(last))
    return short or (len(value) < 200 and bool(alike))


@lru_cache(256)
def _quoted(escapes: int, quote: str) -> re.Pattern[str]:
    """A value up to its closing quote, escaped by as many backslashes as the opening one, or to the line's end.

    Backslashes come in units that stand for one of the value; what is left of a run before a quote tells its depth.
    """
    unit = 2 * (escapes + 1)
    inside, many = "", "++"
    if quote != '"':  # or to where the JSON string around it ends
        inside, many = rf'(?!\\{{0,63}}+"(?:{_ENDS}|\\{{0,63}}"))', ""
    escaped = rf"\\{{{unit}}}|\\{{{unit - 1}}}{quote}|\\{{1,{unit - 1}}}+(?![{quote}\\])"
    return re.compile(rf"(?:{inside}(?:[^{quote}\\\r\n]{many}|{escaped}))*+")
