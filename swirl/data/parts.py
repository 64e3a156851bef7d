"""States that are given as content parts, and the place of their images.

Inside a recording a state is text (`swirl.types.state_text`). Where an image lies is relative to the folder of the file
that names it; once read it is absolute, so that nothing depends on where a command runs.
"""

import base64
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute

from swirl.errors import InputError
from swirl.images import URI
from swirl.types import IMAGE, Part, state_text

pc: Any = pyarrow.compute  # as in `table`

EXPECTED = 'expected {"type": "text", "text": "..."} or {"type": "image", "image": "PATH"}'


def parts_text(parts: list, where: str, column: str) -> str:
    """The text of a state that is given as content parts.

    Raises:
        InputError: A part is neither text nor an image.
    """
    return state_text([_part(part, where, column) for part in parts])


def _part(part: Any, where: str, column: str) -> Part:
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "image":
        return {"type": "image", "image": place(part.get("image"), where, column)}
    raise InputError(f"{where}: {column} holds a part of kind {kind!r}, {EXPECTED}")


def is_struct(value: Any) -> bool:
    """Whether a value is an image as `datasets` stores it: its bytes, its path, or both."""
    return isinstance(value, dict) and set(value) == {"bytes", "path"}


def place(image: Any, where: str, column: str) -> str:
    """Where an image is: the path or `data:` URI itself, or of an image as `datasets` stores it.

    Raises:
        InputError: It is none of these, or on the network.
    """
    if is_struct(image):
        path = image["path"] or ""
        if isinstance(image["bytes"], bytes):
            kind = PurePath(path).suffix[1:].lower().replace("jpg", "jpeg") or "png"
            return f"{URI}{kind};base64,{base64.b64encode(image['bytes']).decode()}"
        image = path
    if not isinstance(image, str) or not image.strip() or "\n" in image:
        raise InputError(
            f"{where}: {column} holds an image that is {str(image)[:60]!r}, expected a path or a data: URI"
        )
    if image.lower().startswith(("http://", "https://")):
        raise InputError(
            f"{where}: {column} holds an image at {image[:80]}; download it, and give the path of the file"
        )
    return image


def with_absolute_images(column: pa.ChunkedArray, folder: Path) -> pa.ChunkedArray:
    """States whose images are named by absolute paths; quick where there is no image.

    Args:
        column: Texts of states.
        folder: What relative paths are relative to.
    """
    if not pc.any(pc.match_substring(column, IMAGE)).as_py():
        return column
    base = f"{IMAGE}{folder.resolve()}/"
    escaped = base.replace("\\", "\\\\")
    column = pc.replace_substring_regex(column, pattern=f"(?m)^{IMAGE}([^/\n])", replacement=f"{escaped}\\1")
    return pc.replace_substring(column, pattern=f"{base}{URI}", replacement=f"{IMAGE}{URI}")
