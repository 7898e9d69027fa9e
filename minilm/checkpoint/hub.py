"""Models by name, from the Hugging Face hub or from what was fetched from it before."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["fetch", "is_hub_name"]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Never pickles, whose reading runs code.
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.spm", "*.jinja"]


def is_hub_name(name: str) -> bool:
    """Whether `name` could be a model's on the hub: OWNER/NAME, and no path here."""
    return bool(_NAME.fullmatch(name)) and not Path(name).exists()


def fetch(name: str) -> Path:
    """The folder that holds the model `name`, fetched if need be.

    ImportError without the extra `hub`; OSError, with the reason, where it can't be fetched.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ImportError(
            f"there is no folder {name}; to fetch a model of that name from the hub: pip install 'minilm[hub]'"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # the library's own kinds, the network's, and ValueErrors for a bad name
        raise OSError(
            f"{name} is no folder here, and could not be fetched from the hub ({type(error).__name__}: {error}). "
            "Without a network, give the folder of a model that you have"
        ) from error
