"""One instant query to one Prometheus, and what its answer says.

Requests and answers are those of the HTTP API that Thanos, Mimir and VictoriaMetrics have as well:
https://prometheus.io/docs/prometheus/latest/querying/api/.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from deployer.sdk import webhook
from deployer.sdk.plugin import CancelScope, http_exchange

T = TypeVar("T")

MOST_BYTES = 1024 * 1024
"""Of an answer; of a query that aggregates it has some hundred."""

SAID = 300
"""Characters of what the server says that are shown."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NO_NUMBERS = ("NaN", "+Inf", "-Inf", "Inf")
_HARMLESS = "PromQL info:"
"""What releases before 3.0 put before remarks on a query among the warnings, which say nothing of its data."""


class Unanswered(Exception):
    """There is no answer yet; another try may get one."""


class WrongQuery(Exception):
    """The query will never get an answer that can be used."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series. `value` is NaN or infinite where Prometheus says so."""

    labels: str
    value: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the query gives now. `warnings`: why it may not be all that there is."""

    samples: Sequence[Sample]
    warnings: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Prometheus(webhook.Server):
    """A server, as the settings have it.

    namespaces  whose gates may ask it, names and patterns
    org_id      sent as `X-Scope-OrgID`, as Mimir and Cortex demand it
    """

    namespaces: Sequence[str] = ("*",)
    org_id: str = ""

    def serves(self, namespace: str) -> bool:
        """May gates of that namespace ask it?"""
        return any(fnmatch.fnmatchcase(namespace, pattern) for pattern in self.namespaces)

    def query(self, text: str, scope: CancelScope) -> Answer:
        """Raises Unanswered, WrongQuery, and what the scope raises."""
        body = urllib.parse.urlencode({"query": text, "timeout": f"{max(1, int(self.timeout))}s"}).encode("ascii")
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        headers |= {"X-Scope-OrgID": self.org_id} if self.org_id else {}
        try:
            target = f"{self.address.target.partition('?')[0].rstrip('/')}/api/v1/query"
            response = self.request("POST", target, body, headers, limit=MOST_BYTES, scope=scope)
        except webhook.NoAnswer as error:
            raise Unanswered(str(error)) from None
        return self._read(response)

    def _read(self, response: http_exchange.Response) -> Answer:
        origin = self.origin
        if response.truncated:
            most = f"{MOST_BYTES // 1024 // 1024} MiB"
            raise WrongQuery(f"its answer has more than {most}: aggregate it, as with sum() or max()")
        found = _json(response.body) if response.cut is None else None
        status = webhook.status_text(response)
        if found is None:
            raise Unanswered(f"{origin} answers {status}, which is no whole answer of a Prometheus")
        said = self._clean(found.get("error"))
        if response.status == 400 and found.get("errorType") == "bad_data":
            raise WrongQuery(f"{origin} refuses it: {said}")
        if response.status != 200 or found.get("status") != "success":
            raise Unanswered(f"{origin} answers {status}{': ' if said else ''}{said}")
        warnings = found.get("warnings") or []
        try:
            if not isinstance(warnings, list):
                raise ValueError("warnings")
            told = [self._clean(text) for text in warnings if not str(text).startswith(_HARMLESS)]
            return Answer(_samples(found.get("data")), told)
        except ValueError:
            raise Unanswered(f"{origin} answers with something that no Prometheus says") from None

    def _clean(self, text: object) -> str:
        """What the server says, on one line, and without what we told it ourselves."""
        line = " ".join(str(text or "").split())
        for secret in (self.token, self.password):
            line = line.replace(secret, "...") if secret else line
        line = "".join(c if c.isprintable() else "?" for c in line)
        return line if len(line) <= SAID else f"{line[:SAID]}..."


def _json(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _samples(data: Any) -> list[Sample]:
    """Raises WrongQuery for what is no instant number, and ValueError for what Prometheus never says."""
    kind, result = _field(data, "resultType", str), data.get("result")
    if kind == "scalar":
        return [Sample("", _number(result))]
    if kind != "vector":
        known = {"matrix": "a range of values: leave out [...], or aggregate over it", "string": "a text"}
        raise WrongQuery(f"it gives {known.get(kind, 'no numbers')}, where a number is needed")
    found = _field(data, "result", list)
    if any(isinstance(series, dict) and "histogram" in series for series in found):
        raise WrongQuery("it gives histograms: make a number of them, as with histogram_quantile()")
    samples = [Sample(_labels(_field(series, "metric", dict)), _number(series.get("value"))) for series in found]
    return sorted(samples, key=lambda sample: sample.labels)


def _field(found: Any, name: str, kind: type[T]) -> T:
    """A field of an object. Raises ValueError."""
    value = found.get(name) if isinstance(found, dict) else None
    if not isinstance(value, kind):
        raise ValueError(name)
    return value


def _number(pair: Any) -> float:
    """Of a time and a text. Raises ValueError for what Prometheus never writes."""
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(text := pair[1], str):
        raise ValueError("value")
    if text not in _NO_NUMBERS and not _NUMBER.fullmatch(text):
        raise ValueError("value")
    return float(text)


def _labels(metric: Mapping[str, Any]) -> str:
    """As PromQL writes them."""
    pairs = [f"{name}={json.dumps(value)}" for name, value in sorted(metric.items()) if name != "__name__"]
    return f"{metric.get('__name__', '')}{{{', '.join(pairs)}}}" if metric else ""


def written(value: float) -> float | str:
    """As it is shown; JSON has no word for what is no number."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
