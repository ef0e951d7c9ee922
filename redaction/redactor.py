"""Who knows which secrets, and which text is cleaned of what. The rules for users are in docs/secrets.md.

Nothing that one party writes is compared with another party's secrets, as the `***` would answer a guess:

- The texts of a deployment are cleaned of that deployment's secrets, and of the service's own credentials that nobody
  can guess: whole ones of at least 16 characters.
- What the service says of itself (`/readyz`, `/plugins`, a 500) is cleaned of those credentials as well. What it
  answers to a request that is wrong is not: such a text may repeat something that the caller sent.
- The service's own log, which its operators read, is cleaned of all its credentials, and of the secrets of the
  deployment that the thread is about. Threads that answer callers are about none; of one that nobody knows, such as a
  plugin's own, it is cleaned of the secrets of every deployment that is being worked on.
- Credentials that can be told by their form are hidden everywhere without being known: JSON Web Tokens,
  `Authorization` headers, the password in a URL.
"""

from __future__ import annotations

import contextlib
import contextvars
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from deployer.core.model.records import Document
from deployer.core.model.secrets import environment_values
from deployer.core.ports import redactor as port
from deployer.redaction.matching import HIDDEN, URL_PASSWORD, Matcher, covered, spellings
from deployer.settings import Settings

GUESSABLE = 16
"""Characters below which one of the service's own credentials is not looked for in what others may write."""
REMEMBERED_CREDENTIALS = 10
"""Earlier values of a credential that are still hidden, such as those of a token that is rotated."""
REMEMBERED = 100
"""Deployments that nobody works on whose secrets are kept at hand."""

_CREDENTIALS = (
    # A JSON Web Token, or its beginning.
    (re.compile(r"\beyJ[\w-]{10,}(?:\.[\w-]*)*"), HIDDEN),
    # "Basic authentication required" is none.
    (re.compile(r"\b((?i:bearer|basic))(\s+)(?=\S*(?:[0-9=]|[a-z][A-Z]))[\w.~+/=-]{8,}"), rf"\1\2{HIDDEN}"),
    (re.compile(r"(base64url\.bearer\.authorization\.[a-z0-9-]+\.)[\w=-]+"), rf"\1{HIDDEN}"),
    (URL_PASSWORD, rf"\1{HIDDEN}"),
)
_SIGNS = ("eyJ", "earer", "EARER", "asic", "ASIC", "://")

Clean = Callable[[str], str]
"""Returns the text without secrets."""


class _Known:
    """A deployment's secrets. The matcher is made when the first text comes."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._values = frozenset(values)
        self._matcher: Matcher | None = None

    def add(self, values: Iterable[str]) -> None:
        """Texts are cleaned of these as well from now on."""
        with self._lock:
            if not self._values.issuperset(more := frozenset(values)):
                self._values |= more
                self._matcher = None

    def clean(self, text: str) -> str:
        """The text without them."""
        with self._lock:
            matcher = self._matcher = self._matcher or Matcher(self._values)
        return matcher.clean(text)


_NOBODY = _Known()
_subject: contextvars.ContextVar[_Known | None] = contextvars.ContextVar("subject", default=None)
"""The deployment or descriptor that this thread is about; None when nobody knows."""


class Redactor(port.Redactor):
    """Takes secrets out of texts. Thread-safe; no text is cleaned under a lock.

    The service's own credentials are told by `set_credentials`. A deployment's secrets come from `find`, if it was
    given, and from `about` and `register`.
    """

    def __init__(self) -> None:
        self.find: port.Find = lambda _: None
        self._lock = threading.Lock()
        self._credentials: dict[str, list[str]] = {}
        self._own = Matcher(())
        self._unguessable: tuple[str, ...] = ()
        self._deployments: OrderedDict[str, _Known] = OrderedDict()
        self._in_use: Counter[str] = Counter()
        self._forgotten = 0

    # --- what is secret --------------------------------------------------------------------------------------------

    def set_credentials(self, owner: str, secrets: Iterable[str]) -> None:
        """From now on these are the service's own credentials for that purpose; the last few before stay hidden."""
        with self._lock:
            known = [secret for secret in secrets if secret]
            before = [secret for secret in self._credentials.get(owner, ()) if secret not in known]
            self._credentials[owner] = known + before[:REMEMBERED_CREDENTIALS]
            every = [secret for owned in self._credentials.values() for secret in owned]
            self._own = Matcher(every)
            whole = {s for secret in every if len(secret) >= GUESSABLE for s, _ in spellings(secret)}
            self._unguessable = tuple(sorted((s for s in whole if len(s) >= GUESSABLE), key=len, reverse=True))

    def register(self, deployment: str, secrets: Iterable[str]) -> None:
        """That deployment has these secrets, besides those that are known. Raises what `find` raises."""
        kept = () if self._at_hand(deployment) else self.find(deployment) or ()
        with self._lock:
            self._keep(deployment, {*secrets, *kept})

    @contextlib.contextmanager
    def about(self, deployment: str, secrets: Iterable[str]) -> Iterator[None]:
        """Whatever this thread says meanwhile is about that deployment, which has these secrets.

        Threads that it starts take that over by `contextvars.copy_context`.
        """
        with self._lock:
            self._in_use[deployment] += 1
            known = self._keep(deployment, secrets)
        before = _subject.set(known)
        try:
            yield
        finally:
            _subject.reset(before)
            with self._lock:
                self._in_use[deployment] -= 1
                if not self._in_use[deployment]:
                    del self._in_use[deployment]
                self._shorten()

    def forget(self, deployment: str) -> None:
        """What `find` said of it may be less than it would say now, unless it is worked on here."""
        with self._lock:
            self._forgotten += 1
            if deployment not in self._in_use:
                self._deployments.pop(deployment, None)

    # --- cleaning --------------------------------------------------------------------------------------------------

    def clean_of(self, deployment: str, text: str) -> str:
        """A text of that deployment, as those see it who may read it. Raises what `find` raises."""
        forgotten = self._forgotten
        known = self._at_hand(deployment)
        if known is None and (found := self.find(deployment)) is not None:
            with self._lock:  # not kept when there may be more by now
                known = self._keep(deployment, found) if forgotten == self._forgotten else _Known(found)
        return self.clean(known.clean(text) if known else text)

    def clean(self, text: str) -> str:
        """A text that may be shown to anybody, and that holds nothing that its readers wrote."""
        spans = []
        for secret in self._unguessable:
            at = text.find(secret)
            while at >= 0:
                spans.append((at, at + len(secret)))
                at = text.find(secret, at + 1)
        return clean_credentials(covered(text, spans) if spans else text)

    def clean_document(self, thing: Any) -> Any:
        """A JSON value with every text in it as `clean` has it, keys included."""
        if isinstance(thing, str):
            return self.clean(thing)
        if isinstance(thing, Mapping):
            return {self.clean(str(key)): self.clean_document(value) for key, value in thing.items()}
        if isinstance(thing, list | tuple):
            return [self.clean_document(item) for item in thing]
        return thing

    def clean_log(self, text: str) -> str:
        """A text of the service's own log."""
        subject = _subject.get()
        if subject is None:
            with self._lock:
                subjects = [self._deployments[deployment] for deployment in self._in_use]
        else:
            subjects = [subject]
        for known in subjects:
            text = known.clean(text)
        return clean_credentials(self._own.clean(text))

    def _at_hand(self, deployment: str) -> _Known | None:
        with self._lock:
            return self._deployments.get(deployment)

    # --- under the lock --------------------------------------------------------------------------------------------

    def _keep(self, deployment: str, secrets: Iterable[str]) -> _Known:
        # Known before it can be found: no text may be cleaned of nothing.
        if (known := self._deployments.get(deployment)) is None:
            known = self._deployments[deployment] = _Known(secrets)
        else:
            known.add(secrets)
        self._deployments.move_to_end(deployment)
        self._shorten()
        return known

    def _shorten(self) -> None:
        """Forget those that nobody has worked on for longest; `find` knows them."""
        unused = [deployment for deployment in self._deployments if deployment not in self._in_use]
        for deployment in unused[: max(0, len(unused) - REMEMBERED)]:
            del self._deployments[deployment]


def clean_credentials(text: str) -> str:
    """The text without what has the form of credentials, whoever's they are."""
    if any(sign in text for sign in _SIGNS):
        for pattern, instead in _CREDENTIALS:
            text = pattern.sub(instead, text)
    return text


def about_nobody() -> None:
    """Whatever this thread logs from now on is about no deployment: it answers callers."""
    _subject.set(_NOBODY)


@contextlib.contextmanager
def about_descriptor(descriptor: Document) -> Iterator[None]:
    """Whatever this thread logs meanwhile is about that descriptor."""
    before = _subject.set(_Known(environment_values(descriptor.get("podspec"))))
    try:
        yield
    finally:
        _subject.reset(before)


_SECRET_SETTING = re.compile(r"password|secret|token|credential", re.IGNORECASE)


def secret_settings(tables: Mapping[str, Any]) -> Iterator[str]:
    """Texts in the plugins' tables of the settings that are called like secrets, and not like names of files."""
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from secret_settings(value)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from secret_settings(item if isinstance(item, Mapping) else {name: item})
        elif isinstance(value, str) and _SECRET_SETTING.search(name) and not name.endswith(("_file", "_name")):
            yield value


def redactor_for(settings: Settings) -> Redactor:
    """One that knows the secrets in the settings."""
    redactor = Redactor()
    gates = {"gates": [gate.options for gate in settings.gates]}
    secrets = (*secret_settings(settings.plugins), *secret_settings(gates))
    redactor.set_credentials("settings", (settings.kubernetes_password, settings.etcd_password, *secrets))
    return redactor
