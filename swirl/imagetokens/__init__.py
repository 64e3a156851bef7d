"""Images as tokens: an image becomes a grid of codes, and each code a token of the language model's vocabulary.

| file | kind |
|---|---|
| `base.py` | what an image tokenizer is; states written with its tokens, and read back |
| `tile.py` | `tile`: exact, for frames that are made of square tiles |
| `fsq.py` | `fsq`: a small autoencoder with finite scalar quantisation, trained on the user's own frames |
| `pretrained.py` | the tokenizers of pretrained unified models |
"""

from swirl.imagetokens.base import ImageTokenizer, drawn, fingerprint, load, written

__all__ = ["ImageTokenizer", "drawn", "fingerprint", "load", "written"]
