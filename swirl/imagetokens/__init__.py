"""Images as tokens: an image becomes a grid of codes, and each code a token of the language model's vocabulary.

| file | kind |
|---|---|
| `base.py` | what an image tokenizer is; states written with its tokens, and read back |
| `tile.py` | `tile`: exact, for frames that are made of square tiles |
| `vq.py` | `vq`: prototypes of patches by k-means |
| `fsq.py` | `fsq`: a small autoencoder with finite scalar quantisation, trained on the user's own frames |
| `pretrained.py` | the tokenizers of pretrained unified models |
| `vocabulary.py` | the image tokens in a language model's vocabulary |
| `restriction.py` | which tokens a reply may have |
"""

from swirl.imagetokens.base import (
    FOLDER,
    ImageTokenizer,
    carried,
    drawn,
    fingerprint,
    load,
    pieces,
    written,
)
from swirl.imagetokens.restriction import note_outside, outside, suppressed

__all__ = [
    "FOLDER",
    "ImageTokenizer",
    "carried",
    "drawn",
    "fingerprint",
    "load",
    "note_outside",
    "outside",
    "pieces",
    "suppressed",
    "written",
]
