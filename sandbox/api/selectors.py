"""Label and field selectors of list and watch requests."""

import re
from collections.abc import Callable

from deployer.sandbox.kinds import EVENT, NAMESPACE, NODE, POD, RC, SECRET, SERVICE, Kind, Object, labels_of
from deployer.sandbox.status import bad_request

Test = Callable[[Object], bool]

COMMA = re.compile(r",(?![^()]*\))")
TERM = re.compile(
    r"(?P<key>[\w./-]+)\s*(?:(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)|(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?"
)
EVERYWHERE = ("metadata.name", "metadata.namespace")
INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
FIELDS: dict[Kind, tuple[str, ...]] = {
    NAMESPACE: ("status.phase",),
    NODE: ("spec.unschedulable",),
    RC: ("status.replicas",),
    SECRET: ("type",),
    SERVICE: ("spec.clusterIP", "spec.type"),
    POD: ("spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP"),
    EVENT: (*(f"involvedObject.{field}" for field in INVOLVED), "reason", "type", "reportingComponent"),
}


def label_test(selector: str) -> Test:
    """Equality and set-based terms; raises a 400 for anything else."""
    tests = [_label_term(term.strip()) for term in COMMA.split(selector) if term.strip()]
    return lambda obj: all(test(obj) for test in tests)


def _label_term(term: str) -> Test:
    negated = term.startswith("!") and "=" not in term
    found = TERM.fullmatch(term[1:].strip() if negated else term)
    if not found or (negated and (found["op"] or found["set"])):
        raise bad_request(f'unable to parse requirement: found "{term}", expected: a label selector')
    key, operator = found["key"], found["op"] or found["set"]
    if operator is None:
        return lambda obj: (key in labels_of(obj)) != negated
    values = {v.strip() for v in found["values"].split(",")} if found["set"] else {found["value"]}
    # As in the real server, `!=` and `notin` also match objects without the label.
    wanted = operator in ("=", "==", "in")
    return lambda obj: (labels_of(obj).get(key) in values) == wanted


def field_test(kind: Kind, selector: str) -> Test:
    """`path=value` and `path!=value` for the paths that the real server indexes; raises a 400 for others."""
    terms: list[tuple[list[str], str, bool]] = []
    for term in filter(None, selector.split(",")):
        path, operator, value = re.match(r"([^!=]*)(==|!=|=|)(.*)", term).groups()  # type: ignore[union-attr]
        if not operator:
            raise bad_request(f"invalid selector: '{selector}'; can't understand '{term}'")
        if path not in (*EVERYWHERE, *FIELDS.get(kind, ())):
            known = '"metadata.name", "metadata.namespace"'
            told = f'"{path}" is not a known field selector: only {known}'
            raise bad_request(f"field label not supported: {path}" if kind in FIELDS else told)
        terms.append((path.split("."), value, operator != "!="))
    return lambda obj: all((_field(obj, path) == value) == wanted for path, value, wanted in terms)


def _field(obj: Object, path: list[str]) -> str:
    for part in path:
        obj = obj.get(part) or {}
    return str(obj) if obj else ""
