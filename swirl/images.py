"""Images of states: opened with care, written as `data:` URIs, kept under the hash of what they show.

A world gives an image as a `data:` URI, so that a state is text all the same. `keep` puts it into a folder beside the
recording, under a name made of its pixels: equal images are one file, and states that show them are equal texts.

What would have to be guessed is refused: transparency, colours that are not RGB, more than 8 bits a channel.
"""

import base64
import binascii
import hashlib
import io
import os
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from swirl import durable
from swirl.errors import InputError

URI = "data:image/"
LOSSLESS = ("1", "L", "P", "RGB")
"""Modes that become RGB without loss."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is opened: of Pillow's others some start programs (EPS), and hardly any is used."""
MOST_PIXELS = 2**26
"""Of an image that is opened; more is a mistake, or an attack on the memory."""


def open_image(where: str, base: Path = Path()) -> Image.Image:
    """An image in RGB.

    Args:
        where: A path, or a `data:` URI.
        base: What a relative path is relative to.

    Raises:
        InputError: There is no such file, it is no image, or not one in plain colours.
    """
    name = short(where)
    try:
        data = io.BytesIO(_of_uri(where)) if where.startswith(URI) else base / where
        with warnings.catch_warnings(action="ignore"), Image.open(data, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(
                    f"{name}: {image.width}x{image.height} pixels, expected at most {MOST_PIXELS:,} in all"
                )
            image.load()
            image = ImageOps.exif_transpose(image)  # upright, as every viewer shows it
    except FileNotFoundError:
        raise InputError(f"{name}: no such image file; mend the path, which is relative to the recording") from None
    except UnidentifiedImageError:
        raise InputError(f"{name}: no image that can be read; expected {', '.join(FORMATS)}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: a broken image ({error}); write it again") from None
    return _plain(image, name)


def short(where: str) -> str:
    """What to call an image in a message: its path, or how its URI begins."""
    return f"{where[:40]}…" if where.startswith(URI) else where


def _plain(image: Image.Image, name: str) -> Image.Image:
    """The image in RGB, or an error where that would lose something."""
    opaque = "transparency" not in image.info
    if image.mode in ("RGBA", "LA", "PA"):
        low, _ = image.getchannel("A").getextrema()
        opaque = low == 255
    elif image.mode not in LOSSLESS:
        raise InputError(f"{name}: an image of mode {image.mode}, expected 8-bit RGB or grey; convert it")
    if not opaque:
        raise InputError(f"{name}: an image with transparent parts, expected an opaque one; put it on a background")
    return image.convert("RGB")


def _of_uri(uri: str) -> bytes:
    kind, comma, code = uri.partition(",")
    if not comma or not kind.endswith(";base64"):
        raise ValueError("a data: URI that is not base64")
    try:
        return base64.b64decode(code, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def png(image: Image.Image) -> bytes:
    """The image as a PNG file; the same pixels are the same bytes."""
    held = io.BytesIO()
    image.convert("RGB").save(held, "PNG")
    return held.getvalue()


def data_uri(image: Image.Image) -> str:
    """The image as a `data:` URI."""
    return f"{URI}png;base64,{base64.b64encode(png(image)).decode()}"


def beside(recording: Path) -> Path:
    """The folder that holds the images of a recording: `pairs.images` for `pairs.parquet`."""
    return recording.with_name(f"{recording.stem}.images")


def keep(image: Image.Image, folder: Path) -> str:
    """Put an image into a folder, under the hash of its size and pixels, unless it is there.

    Returns:
        The name of its file.
    """
    size = f"{image.width}x{image.height} "
    name = f"{hashlib.sha256(size.encode() + image.convert('RGB').tobytes()).hexdigest()[:24]}.png"
    if not (folder / name).is_file():
        part = folder / f".{name}.{os.getpid()}"  # several processes may keep the same one
        with durable.explain_full_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(png(image))
            os.replace(part, folder / name)
    return name
