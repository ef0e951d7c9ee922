"""What the lines of the service's own log are about: ids that each line of a thread carries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType

_ids: ContextVar[Mapping[str, str]] = ContextVar("ids", default=MappingProxyType({}))


def ids() -> Mapping[str, str]:
    """Those of this thread, by what they name: `request`, `namespace`, `app`, `deployment`, `operation`."""
    return _ids.get()


def request() -> str:
    """The id of the request that this thread answers, or whose operation it carries out; empty for none."""
    return _ids.get().get("request", "")


@contextlib.contextmanager
def about(**named: str) -> Iterator[None]:
    """Lines carry these as well meanwhile; those of threads started by `contextvars.copy_context`, too."""
    before = _ids.set({**_ids.get(), **named})
    try:
        yield
    finally:
        _ids.reset(before)


def begin(**named: str) -> None:
    """Lines of this thread carry these from now on and no others, until the next call."""
    _ids.set(named)
