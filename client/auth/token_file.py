"""A token in a file, or in a variable."""

from __future__ import annotations

from pathlib import Path

from deployer.client.errors import Misused


def read_token(path: Path) -> str:
    """The token in a file. Raises Misused."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Misused(f"the token file {path} cannot be read: {said}") from None
    return only_token(text, f"the token file {path}")


def only_token(text: str, where: str) -> str:
    """A text that is one token, without white space around it. Raises Misused."""
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Misused(f"{where} must hold one token and nothing else")
    return token
