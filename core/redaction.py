"""The one place where secrets are taken out of text: a redactor that everything passes which the service says or shows.

The rules, for users in docs/secrets.md:

- A value shorter than 4 characters, and one that everybody would guess (`TRIVIAL`, numbers of up to 5 digits), is
  ignored: replacing every `1` or `true` would make logs unreadable and protect nothing.
- A value of 4 to 7 characters counts when it has characters of two kinds (lower case, upper case, digits, others), and
  is only found as a word of its own.
- Longer ones are found anywhere, also inside other words.
- Each is also found as JSON, Python, HTML and URLs spell it, in base64 (also in the midst of a longer text that was
  encoded), with its white space folded, and line by line; and with its end missing, where a text was cut.
- Credentials that can be told by their form are hidden without being known: JSON Web Tokens, `Authorization` headers,
  the password in a URL.
"""

from __future__ import annotations

import base64
import contextlib
import html
import itertools
import json
import logging
import re
import threading
import urllib.parse
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from deployer.core.records import Document, Plan
from deployer.core.settings import Settings

HIDDEN = "***"
SHORTEST = 4
"""Characters that a secret has at least."""
SHORT = 8
"""Characters below which a secret is only looked for as a word of its own."""
PARTIAL = 10
"""Characters of a secret that give it away where a text was cut."""
REMEMBERED = 200
"""Owners whose secrets are still hidden although they were released: the last word on them may come late."""

TRIVIAL = frozenset(
    {
        *("true", "false", "none", "null", "auto", "always", "never", "enabled", "disabled", "default", "unknown"),
        *("production", "development", "acceptance", "staging", "testing", "preproduction", "integration"),
        *("localhost", "127.0.0.1", "0.0.0.0", "::1", "info", "debug", "warn", "warning", "error", "critical"),
        *("http://", "https://", "http://localhost", "https://localhost", "utf-8", "UTF-8", "en_US.UTF-8"),
    }
)
_CUT = ("...", "\u2026", " [cut here")
_CREDENTIALS = (
    # A JSON Web Token, or its beginning.
    (re.compile(r"\beyJ[\w-]{10,}(?:\.[\w-]*)*"), HIDDEN),
    # "Basic authentication required" is none.
    (re.compile(r"\b((?i:bearer|basic))(\s+)(?=\S*(?:[0-9=]|[a-z][A-Z]))[\w.~+/=-]{8,}"), rf"\1\2{HIDDEN}"),
    (re.compile(r"(base64url\.bearer\.authorization\.[a-z0-9-]+\.)[\w=-]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(://[^/\s:@\"']+:)[^@/\s\"']+(?=@)"), rf"\1{HIDDEN}"),
)
_SIGNS = ("eyJ", "earer", "EARER", "asic", "ASIC", "://")
_KINDS = (str.islower, str.isupper, str.isdigit)


class Redactor:
    """Hides secrets that it was told. Thread-safe; `clean` takes time by the length of the text, not by their number.

    Secrets belong to an owner (a deployment, the connection to Kubernetes) and are hidden until it is released, and a
    while longer. What `add` was told is hidden for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owned: dict[str, tuple[frozenset[str], frozenset[_Spelling]]] = {}
        self._late: deque[frozenset[_Spelling]] = deque()
        self._uses: Counter[_Spelling] = Counter()
        self._index = _Index()

    def add(self, secret: str) -> None:
        """From now on `clean` hides it."""
        with self._lock:
            self._use(frozenset(_spellings(secret)))

    def hold(self, owner: str, secrets: Iterable[str]) -> None:
        """Hide these, besides those of the same owner before, until it is released."""
        values = frozenset(secrets)
        known, _ = self._owned.get(owner, _NOTHING)
        spellings = frozenset(itertools.chain.from_iterable(map(_spellings, values - known)))
        with self._lock:
            had_values, had = self._owned.get(owner, _NOTHING)
            self._use(spellings - had)
            self._owned[owner] = had_values | values, had | spellings

    def replace(self, owner: str, secrets: Iterable[str]) -> None:
        """Hide these for the owner, and let go of those that it had."""
        self.release(owner)
        self.hold(owner, secrets)

    def release(self, owner: str) -> None:
        """The owner is done; its secrets are forgotten once `REMEMBERED` others are done too."""
        with self._lock:
            _, spellings = self._owned.pop(owner, _NOTHING)
            if spellings:
                self._late.append(spellings)
            while len(self._late) > REMEMBERED:
                self._forget(self._late.popleft())

    def clean(self, text: str) -> str:
        """The text with every secret as `***`. Secrets that overlap or touch become one `***`, so that no end shows."""
        cleaned = _covered(text, sorted(self._index.spans(text))) if self._uses else text
        if any(sign in cleaned for sign in _SIGNS):
            for pattern, instead in _CREDENTIALS:
                cleaned = pattern.sub(instead, cleaned)
        return cleaned

    def clean_document(self, thing: Any) -> Any:
        """A JSON value with every text in it cleaned, keys included."""
        if isinstance(thing, str):
            return self.clean(thing)
        if isinstance(thing, Mapping):
            return {self.clean(str(key)): self.clean_document(value) for key, value in thing.items()}
        if isinstance(thing, list | tuple):
            return [self.clean_document(item) for item in thing]
        return thing

    def _use(self, spellings: Iterable[_Spelling]) -> None:
        for spelling in spellings:
            self._uses[spelling] += 1
            if self._uses[spelling] == 1:
                self._index.add(spelling)

    def _forget(self, spellings: Iterable[_Spelling]) -> None:
        for spelling in spellings:
            self._uses[spelling] -= 1
            if not self._uses[spelling]:
                del self._uses[spelling]
                self._index.remove(spelling)


_NOTHING: tuple[frozenset[str], frozenset[Any]] = frozenset(), frozenset()


_Spelling = tuple[str, bool]
"""A secret as it may be written; True when it counts only as a word of its own."""


class _Index:
    """Finds where in a text one of many spellings stands. Written under a lock, read without one.

    By their first characters, then by their length: a look-up for each place of the text, and for each length of those
    that begin so, however many there are.
    """

    def __init__(self) -> None:
        self._by_start: dict[str, tuple[tuple[int, bool, set[str]], ...]] = {}
        self._by_beginning: dict[str, set[str]] = {}

    def add(self, spelling: _Spelling) -> None:
        text, whole = spelling
        found = self._by_start.get(text[:SHORTEST], ())
        for length, wholes, texts in found:
            if (length, wholes) == (len(text), whole):
                texts.add(text)
                break
        else:
            self._by_start[text[:SHORTEST]] = (*found, (len(text), whole, {text}))
        if len(text) > PARTIAL:
            self._by_beginning.setdefault(text[:PARTIAL], set()).add(text)

    def remove(self, spelling: _Spelling) -> None:
        text, whole = spelling
        start, beginning = text[:SHORTEST], text[:PARTIAL]
        for length, wholes, texts in self._by_start[start]:
            if (length, wholes) == (len(text), whole):
                texts.discard(text)
        left = tuple(entry for entry in self._by_start[start] if entry[2])
        if left:
            self._by_start[start] = left
        else:
            del self._by_start[start]
        if len(text) > PARTIAL and (same := self._by_beginning.get(beginning)) is not None:
            same.discard(text)
            if not same:
                del self._by_beginning[beginning]

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where spellings begin and end."""
        starts = self._by_start.get
        for at in range(len(text) - SHORTEST + 1):
            entries = starts(text[at : at + SHORTEST])
            if entries is None:
                continue
            for length, whole, texts in entries:
                end = at + length
                if text[at:end] in texts and not (whole and _goes_on(text, at, end)):
                    yield at, end
            if end := self._cut(text, at):
                yield at, end

    def _cut(self, text: str, at: int) -> int:
        """Where a spelling ends whose own end was cut off; 0 when there is none."""
        for secret in tuple(self._by_beginning.get(text[at : at + PARTIAL], ())):
            end = next((at + n for n, c in enumerate(secret) if text[at + n : at + n + 1] != c), 0)
            if end and (end == len(text) or text.startswith(_CUT, end)):
                return end
        return 0


def _goes_on(text: str, start: int, end: int) -> bool:
    """True within a longer word."""
    return any(c.isalnum() or c == "_" for c in (text[start - 1 : start], text[end : end + 1]))


def _covered(text: str, spans: list[tuple[int, int]]) -> str:
    if not spans:
        return text
    out: list[str] = []
    shown = 0  # everything before this offset is in `out`
    covered = -1  # end of the last `***`
    for start, end in spans:
        if start > covered:
            out += (text[shown:start], HIDDEN)
        covered = max(covered, end)
        shown = covered
    out.append(text[shown:])
    return "".join(out)


# --- what counts, and how it may be spelled -----------------------------------------------------------------------


def counts(secret: str) -> bool:
    """False for what is too short or too common to be hidden."""
    if len(secret) < SHORTEST or secret.lower() in TRIVIAL or secret in TRIVIAL:
        return False
    if secret.isdigit() and len(secret) <= 5:  # a port, a number of seconds
        return False
    if len(secret) >= SHORT:
        return True
    kinds = {next((n for n, kind in enumerate(_KINDS) if kind(character)), -1) for character in secret}
    return len(kinds) > 1


def _spellings(secret: str) -> set[_Spelling]:
    lines = [line.strip() for line in secret.splitlines()] if "\n" in secret.strip() or "\r" in secret.strip() else []
    # A line of a longer value is only hidden when it says something: `}` and `---` do not.
    values = [secret, *(line for line in lines if len(line) >= SHORT)]
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(secret)
        values += [urllib.parse.unquote(parts.password), parts.password] if parts.password else []
    return {spelling for value in values if counts(value) for spelling in _spelled(value)}


def _spelled(value: str) -> Iterator[_Spelling]:
    whole = len(value) < SHORT
    encodable = value.encode("utf-8", "surrogatepass")
    found = {
        value,
        value.strip(),
        " ".join(value.split()),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(value)[1:-1])[1:-1],
        repr(value)[1:-1],
        html.escape(value),
        html.escape(value, quote=False),
        urllib.parse.quote(encodable, safe=""),
        urllib.parse.quote(encodable),
        urllib.parse.quote_plus(encodable),
    }
    yield from ((text, whole) for text in found if len(text) >= SHORTEST)
    for encoded in _in_base64(encodable):
        yield encoded, False
        yield encoded.translate(_URL_SAFE), False


_URL_SAFE = str.maketrans("+/", "-_")


def _in_base64(value: bytes) -> Iterator[str]:
    """What is sure to be in the base64 of any text that contains the value, wherever in it: three cases."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + value).decode("ascii")
        # The first characters and the last hold bits of the neighbours as well.
        first = -(-before * 8 // 6)
        last = (before + len(value)) * 8 // 6
        if last - first >= SHORT:
            yield encoded[first:last]


# --- where secrets are --------------------------------------------------------------------------------------------


def environment_values(podspec: Any) -> Iterator[str]:
    """The values that stand in the environment of a podspec's containers, whatever else it may be."""
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        found = podspec.get(kind) if isinstance(podspec, Mapping) else None
        for container in found if isinstance(found, list) else ():
            yield from values_of(container.get("env") if isinstance(container, Mapping) else None)


def values_of(environment: Any) -> Iterator[str]:
    """The values of core/v1 EnvVars; what `valueFrom` leads to is not known here."""
    for variable in environment if isinstance(environment, list) else ():
        value = variable.get("value") if isinstance(variable, Mapping) else None
        if isinstance(value, str):
            yield value


_SECRET_SETTING = re.compile(r"password|secret|token|credential", re.IGNORECASE)


def secret_settings(tables: Mapping[str, Any]) -> Iterator[str]:
    """Texts in the plugins' tables of the settings that are called like secrets, and not like names of files."""
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from secret_settings(value)
        elif isinstance(value, str) and _SECRET_SETTING.search(name) and not name.endswith(("_file", "_name")):
            yield value


def redactor_for(settings: Settings) -> Redactor:
    """One that knows the secrets in the settings."""
    redactor = Redactor()
    for secret in (settings.kubernetes_password, *secret_settings(settings.plugins)):
        redactor.add(secret)
    return redactor


def public_names(descriptor: Document, version: str) -> set[str]:
    """What is said of a deployment everywhere, so that it is no secret even when a variable has it."""
    app = descriptor.get("appName")
    names = [app, version, f"{app}-{version}", descriptor.get("namespace"), descriptor.get("frontend")]
    podspec = descriptor.get("podspec")
    containers = podspec.get("containers") if isinstance(podspec, Mapping) else None
    for container in containers if isinstance(containers, list) else ():
        if isinstance(container, Mapping):
            names += [container.get("name"), container.get("image")]
    return {name for name in names if isinstance(name, str)}


def secrets_of(descriptor: Document, plan: Plan | None = None) -> set[str]:
    """What must not be said of a deployment: the values of its environment."""
    found = set(environment_values(descriptor.get("podspec")))
    if plan is not None:
        template = plan.objects.get("controller", {}).get("spec", {}).get("template", {})
        found |= {*environment_values(template.get("spec")), *values_of(plan.environment)}
    return found - public_names(descriptor, plan.version if plan else str(descriptor.get("newVersion")))


# --- the service's own log ----------------------------------------------------------------------------------------


class _Cleaning(logging.Formatter):
    """Formats as another formatter does, and cleans what comes out: message, arguments and tracebacks."""

    def __init__(self, formatter: logging.Formatter, clean: Callable[[str], str]) -> None:
        super().__init__()
        self.formatter = formatter
        self._clean = clean

    def format(self, record: logging.LogRecord) -> str:
        return self._clean(self.formatter.format(record))


def guard_logging(redactor: Redactor) -> Callable[[], None]:
    """Have every handler of this process's log clean what it writes; returns the function that undoes it."""
    root = logging.getLogger()
    loggers = [root, *(found for found in root.manager.loggerDict.values() if isinstance(found, logging.Logger))]
    guarded = []
    for handler in dict.fromkeys(handler for logger in loggers for handler in logger.handlers):
        before = handler.formatter
        handler.setFormatter(_Cleaning(before or logging.Formatter(), redactor.clean))
        guarded.append((handler, before))

    def undo() -> None:
        for handler, before in guarded:
            handler.setFormatter(before)

    return undo
