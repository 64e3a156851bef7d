"""TOML as the standard library has no writer for it, and the leaves of a parsed one, for comparing two."""

import datetime
import json
from typing import Any


def dumps(table: dict[str, Any]) -> str:
    """Nested dicts as TOML; values are strings, numbers, booleans, dates, lists of these and of dicts.

    Raises:
        TypeError: A value is of a type that TOML cannot say.
    """
    return _table(table, prefix="")


def leaves(value: Any, key: str = "") -> dict[str, str]:
    """Leaves of a parsed TOML by dotted key, as `repr`: that tells true, 1 and 1.0 apart, and nan equals nan."""
    if isinstance(value, dict) and (value or not key):
        items = [(f"{key}.{name}" if key else name, item) for name, item in value.items()]
    elif isinstance(value, list) and value:
        items = [(f"{key}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {key: repr(value)}
    return {leaf: text for name, item in items for leaf, text in leaves(item, name).items()}


def differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two parsed TOMLs, as "KEY was OLD, now NEW", in the order of the new one."""
    before, after = leaves(was), leaves(now)
    told = {key: (before.get(key, "not set"), after.get(key, "not set")) for key in [*after, *before]}
    return [f"{key} was {old}, now {new}" for key, (old, new) in told.items() if old != new]


def _table(table: dict[str, Any], prefix: str) -> str:
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            name = f"{prefix}{_key(key)}"
            lines += ["", f"[{name}]", _table(value, f"{name}.").rstrip("\n")]
    return "\n".join(lines).strip("\n") + "\n"


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _value(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # JSON's escapes are a subset of TOML's basic strings, but for DEL, which TOML wants escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case int() | float():
            return repr(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return f"{{{', '.join(f'{_key(key)} = {_value(item)}' for key, item in value.items())}}}"
        case datetime.date() | datetime.time():
            return value.isoformat()
    raise TypeError(f"no TOML for {type(value).__name__}: {value!r}")
