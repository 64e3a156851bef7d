"""Learn world models from state-only data: a forward and an inverse model that teach each other."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swirl.api import load_forward, load_inverse

__all__ = ["load_forward", "load_inverse"]


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import, and `swirl --help` must not wait for it.
    if name in __all__:
        from swirl import api

        return getattr(api, name)
    raise AttributeError(f"module 'swirl' has no attribute {name!r}")
