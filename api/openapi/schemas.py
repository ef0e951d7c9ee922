"""The schemas of the OpenAPI document: what is sent and answered, made from the descriptor's schema and the records.

What is accepted is wider than what is stored: `null` and, for some fields, an empty text mean that a field is absent,
booleans may be texts. So a descriptor has two schemas here, one as it is sent and one as it is answered.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.api.openapi import gates
from deployer.api.openapi.app_schemas import APPS, PROGRESS
from deployer.api.openapi.shapes import COUNT as _COUNT
from deployer.api.openapi.shapes import REF
from deployer.api.openapi.shapes import TIME as _TIME
from deployer.api.openapi.shapes import object_of as _object
from deployer.commands.freezes import SCHEMA as SENT_FREEZE
from deployer.core.contract.health import BODY_LIMIT
from deployer.core.model.records import Document, Status
from deployer.descriptor import BOOLEANS, EMPTY_IS_ABSENT, NEVER_STORED, SCHEMA, Rules

_ALWAYS_THERE = ("namespace", "appName", "newVersion", "deploymentType", "replicas", *BOOLEANS, "podspec")
EXAMPLE: Document = {
    "namespace": "default",
    "appName": "my-app",
    "newVersion": "#",
    "deploymentType": "blue-green",
    "replicas": 2,
    "frontend": "example.com",
    "redirectWww": False,
    "useCompression": True,
    "additionHttpHeaders": [{"Header": "X-TEST", "Value": "some http header test"}],
    "useHealthCheck": True,
    "healthCheckPort": 9999,
    "healthCheckPath": "health",
    "healthCheckType": "probe",
    "imagePullSecrets": [{"name": "registry-credentials"}],
    "podspec": {
        "containers": [
            {
                "name": "my-app",
                "image": "registry.example.com/my-app:1.4",
                "ports": [
                    {"name": "http", "containerPort": 8080},
                    {"name": "healthcheck", "containerPort": 9999},
                ],
            }
        ]
    },
}
"""A descriptor that shows most fields; valid where ingress provider, strategy and health checker are installed."""


def components(rules: Rules) -> dict[str, Any]:
    """All of them by name. `rules` says what is installed here."""
    sent, answered = _Descriptor("", rules), _Descriptor("Normal", rules)
    return {
        "Descriptor": sent.as_sent(),
        **sent.definitions,
        "NormalDescriptor": answered.as_answered(),
        **answered.definitions,
        "StoredDescriptor": {
            "description": "A descriptor as it is stored: in its normal form, with the fields that the service sets.",
            "allOf": [{"$ref": f"{REF}NormalDescriptor"}],
            "required": ["id", "created", "lastModified"],
            "properties": {"id": {"type": "string", "format": "uuid"}, "created": _TIME, "lastModified": _TIME},
        },
        "CreatedDescriptor": {
            "description": "A descriptor stored just now, and what there is to remark. It can be sent as it is.",
            "allOf": [{"$ref": f"{REF}StoredDescriptor"}],
            "properties": {
                "validation": {"description": "Only with `remarks` in it.", "$ref": f"{REF}Validation"},
            },
        },
        "ValidatedDescriptor": {
            "description": "A descriptor in its normal form, and how it was checked. It can be sent as it is.",
            "allOf": [{"$ref": f"{REF}NormalDescriptor"}],
            "required": ["validation"],
            "properties": {"validation": {"$ref": f"{REF}Validation"}},
        },
        **_RECORDS,
        **gates.COMPONENTS,
    }


# --- the descriptor ---------------------------------------------------------------------------------------------------


class _Descriptor:
    """The descriptor's schema with its definitions lifted out into components, whose names begin with `prefix`."""

    def __init__(self, prefix: str, rules: Rules) -> None:
        self.definitions: dict[str, Any] = {}
        self._prefix = prefix
        self._rules = rules

    def as_sent(self) -> Document:
        """What is accepted."""
        schema = self._with_what_is_installed()
        for name, field in schema["properties"].items():
            if name in schema["required"]:
                continue
            if name == "healthCheckPort":
                field["minimum"] = 0  # the original's zero value: absent
            if "type" in field or "$ref" in field:
                schema["properties"][name] = _or_absent(field, empty=name in EMPTY_IS_ABSENT)
        webhook = schema["properties"]["webhooks"]["anyOf"][0]["items"]["properties"]
        webhook["description"] = _or_absent(webhook["description"])
        schema["examples"] = [EXAMPLE]
        return schema

    def as_answered(self) -> Document:
        """What is stored and shown. Later versions may add fields."""
        schema = self._with_what_is_installed()
        for name in NEVER_STORED:
            del schema["properties"][name]
        self.definitions["NormalFlag"] = {"type": "boolean"}
        schema["title"] = "A descriptor in its normal form"
        schema["required"] = list(_ALWAYS_THERE)
        del schema["additionalProperties"]
        return schema

    def _with_what_is_installed(self) -> Document:
        schema = self._lift(SCHEMA)
        fields, rules = schema["properties"], self._rules
        if not self._prefix:
            # What was stored may name what is no longer there.
            fields["deploymentType"]["enum"] = sorted(rules.strategies)
            fields["healthCheckType"]["enum"] = sorted(rules.health_checkers)
            fields["strategyOptions"] |= self._options("Strategy", rules.strategies)
            fields["ingressOptions"] |= self._options("Ingress", dict([rules.ingress]))
            fields["healthCheckOptions"] |= self._options("HealthCheck", rules.health_options)
            if rules.gates:
                gate = self.definitions["Gate"]["properties"]
                gate["type"]["enum"] = sorted(rules.gates)
                gate["options"] |= self._options("Gate", {name: kind.schema for name, kind in rules.gates.items()})
            fields["extensions"] |= self._extensions(rules.extensions)
        return schema

    def _options(self, what: str, schemas: Mapping[str, Mapping[str, Any] | None]) -> Document:
        """The schema of a provider's options; what is chosen decides which of several counts."""
        if not any(schemas.values()):
            return {"maxProperties": 0}
        found = []
        for name, schema in schemas.items():
            component = f"{what}Options-{name}"
            lifted: Document = {"maxProperties": 0} if schema is None else self._lift(schema, component)
            required, fields = lifted.get("required", ()), lifted.get("properties", {})
            fields |= {key: _or_absent(field) for key, field in fields.items() if key not in required}
            self.definitions[component] = lifted
            found.append({"$ref": REF + component})
        return found[0] if len(found) == 1 else {"anyOf": found}

    def _extensions(self, plugins: Mapping[str, Sequence[Mapping[str, Any]]]) -> Document:
        """The options of each plugin that may have some; it may have several schemas, all of which count."""
        fields: Document = {}
        for name, schemas in plugins.items():
            lifted = [self._lift(schema, f"Extension-{name}-{n}") for n, schema in enumerate(schemas)]
            fields[name] = {"type": "object"} | ({"allOf": lifted} if lifted else {"maxProperties": 0})
        return {"properties": fields, "additionalProperties": False}

    def _lift(self, schema: Mapping[str, Any], owner: str = "") -> Document:
        """A copy in which `$defs` have become components, since `#` is another document's root in OpenAPI."""
        out = copy.deepcopy(dict(schema))
        out.pop("$schema", None)
        names = {f"#/$defs/{name}": self._name(name, owner) for name in out.get("$defs", {})}
        for name, definition in out.pop("$defs", {}).items():
            self.definitions[self._name(name, owner)] = _redirected(definition, names)
        lifted: Document = _redirected(out, names)
        return lifted

    def _name(self, name: str, owner: str) -> str:
        return f"{owner}-{name}" if owner else f"{self._prefix}{name[0].upper()}{name[1:]}"


def _redirected(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, dict):
        return {
            key: REF + names[value] if key == "$ref" and value in names else _redirected(value, names)
            for key, value in schema.items()
        }
    return [_redirected(item, names) for item in schema] if isinstance(schema, list) else schema


def _or_absent(field: Document, *, empty: bool = False) -> Document:
    """The field's schema, or what means that it is absent."""
    described = {key: field[key] for key in ("description", "default", "deprecated") if key in field}
    rest = {key: value for key, value in field.items() if key not in described}
    return described | {"anyOf": [rest, {"enum": ["", None]} if empty else {"type": "null"}]}


# --- everything else --------------------------------------------------------------------------------------------------


_RECORDS: dict[str, Any] = {
    **APPS,
    "Deployment": _object(
        "One deployment. `DEPLOYING` becomes `DEPLOYED` or `FAILURE`; `DEPLOYED`, or a cancelled one, becomes "
        "`UNDEPLOYING` and `UNDEPLOYED`.",
        ("id", "created", "lastModified", "version", "status", "descriptor"),
        id={"type": "string", "format": "uuid"},
        created=_TIME,
        lastModified=_TIME,
        version={"type": "string", "description": "Empty until `#` has become a number."},
        status={"type": "string", "enum": [status.value for status in Status]},
        descriptor={
            "description": "A copy of the descriptor, as it was when it was deployed.",
            "$ref": f"{REF}NormalDescriptor",
        },
        failure={"$ref": f"{REF}Failure"},
        **PROGRESS,
        createdBy={"type": "string", "description": "Who asked for it, when that is known."},
        undeployedBy={"type": "string", "description": "Who asked for its end, when that is known."},
        rollbackOf={
            "type": "string",
            "format": "uuid",
            "description": "The deployment that this one deploys once more, as it was.",
        },
        freezeOverride={"$ref": f"{REF}FreezeOverride"},
        gates=gates.LIST,
    ),
    "RollbackDeployment": {
        "description": "The deployment that will be live, and what is gone back to.",
        "allOf": [
            {"$ref": f"{REF}Deployment"},
            {"type": "object", "required": ["rollback"], "properties": {"rollback": {"$ref": f"{REF}Rollback"}}},
        ],
    },
    "Rollback": _object(
        "What a rollback goes back to. The stored descriptor does not change by it.",
        ("version", "warm", "images", "replicas", "environment", "descriptorUnchanged"),
        version={"type": "string"},
        warm={"type": "boolean", "description": "Its pods still run: one switch. Else it is deployed once more."},
        images={"type": "array", "items": {"type": "string"}},
        replicas={"type": "integer"},
        environment={
            "type": "array",
            "items": {"type": "string"},
            "description": "Names of the variables that injectors gave it.",
        },
        descriptorUnchanged={"type": "boolean", "const": True},
    ),
    "DeploymentSummary": _object(
        "A deployment for a caller who may not `get` (in lists: `list`) descriptors: without the copy of the "
        "descriptor. A caller who may not read deployments either sees the required fields only.",
        ("id", "namespace", "appName", "status"),
        id={"type": "string", "format": "uuid"},
        namespace={"type": "string"},
        appName={"type": "string"},
        created=_TIME,
        lastModified=_TIME,
        version={"type": "string"},
        status={"type": "string", "enum": [status.value for status in Status]},
        failure={"$ref": f"{REF}Failure"},
        **PROGRESS,
        createdBy={"type": "string"},
        undeployedBy={"type": "string"},
        rollbackOf={"type": "string", "format": "uuid"},
        freezeOverride={"$ref": f"{REF}FreezeOverride"},
        gates=gates.LIST,
    ),
    "Freeze": _object(
        "What keeps a namespace, or all, from new deployments.",
        ("namespace", "reason", "source"),
        namespace={
            "type": "string",
            "description": "The frozen namespace; `*` for all; in the list of all freezes a window's patterns.",
        },
        reason={"type": "string"},
        source={
            "type": "string",
            "enum": ["request", "window"],
            "description": "`request`: somebody put it. `window`: the settings have it.",
        },
        until={**_TIME, "description": "When it ends, when that is known."},
        by={"type": "string", "description": "Who put it, when that is known."},
        created={**_TIME, "description": "When it was put."},
    ),
    "NewFreeze": {**SENT_FREEZE, "description": "A freeze as it is put."},
    "FreezeOverride": _object(
        "That this was deployed in spite of a freeze.",
        ("reason", "freezes"),
        reason={"type": "string", "description": "Why, in the words of whoever asked for it."},
        freezes={"type": "array", "items": {"$ref": f"{REF}Freeze"}},
    ),
    "DescriptorSummary": _object(
        "A descriptor for a caller who may not `get` descriptors.",
        ("id", "namespace", "appName"),
        id={"type": "string", "format": "uuid"},
        namespace={"type": "string"},
        appName={"type": "string"},
    ),
    "Failure": _object(
        "Why a deployment failed.",
        ("reason", "message"),
        reason={"type": "string", "description": "One word, such as `CrashLoop`."},
        message={"type": "string", "description": "What happened, in a sentence."},
        pod={"type": "string"},
        hint={"type": "string", "description": "What to do."},
    ),
    "HealthCheckData": _object(
        "What a pod answered to its last health check.",
        ("podName", "value"),
        podName={"type": "string"},
        value={"type": "string", "description": f"The body as it came, at most {BODY_LIMIT >> 10} KiB with all else."},
        healthy={"type": "boolean"},
        message={"type": "string", "description": "Why it is healthy or not, in a sentence."},
        status={"type": "integer", "description": "Of an HTTP answer; missing when none came."},
        headers={
            "type": "object",
            "description": "Those headers of an HTTP answer that tell who answered and why, in lower case; of "
            "`location` the path.",
            "additionalProperties": {"type": "string"},
        },
    ),
    "Problem": _object(
        "An error (RFC 9457).",
        ("type", "title", "status", "detail"),
        type={"type": "string", "description": "`about:blank`: the status says what kind of problem it is."},
        title={"type": "string", "description": "The status in words."},
        status={"type": "integer", "minimum": 400, "maximum": 599},
        detail={"type": "string", "description": "What is wrong, in a sentence."},
        validation={"$ref": f"{REF}Validation"},
        freezes={"type": "array", "items": {"$ref": f"{REF}Freeze"}, "description": "What freezes the namespace."},
        quota=_object(
            "The quota of the namespace that is used up.",
            ("name", "used", "limit"),
            name={"type": "string", "enum": ["descriptors", "stored_bytes", "log_bytes"]},
            used={"type": "integer", "minimum": 0},
            limit={"type": "integer", "minimum": 0},
        ),
        errors={
            "description": "Everything that is wrong with a descriptor or a parameter.",
            "type": "array",
            "items": _object(
                "One thing that is wrong.",
                ("path", "message"),
                path={
                    "type": "string",
                    "description": "Field or parameter, such as `podspec.containers[0].image`; empty for the whole.",
                },
                message={"type": "string"},
            ),
        },
    ),
    "Validation": _object(
        "How a descriptor was checked.",
        ("checked", "notChecked", "warnings"),
        checked={
            "description": "`descriptor`, and the kinds of objects that the API server has judged.",
            "type": "array",
            "items": {"type": "string"},
        },
        notChecked={
            "type": "array",
            "items": _object(
                "What nobody could judge, and why.",
                ("what", "reason"),
                what={"type": "string"},
                reason={"type": "string"},
            ),
        },
        warnings={"description": "What the API server warns of.", "type": "array", "items": {"type": "string"}},
        remarks={
            "description": "What means something else than it seems, or has no effect; absent when there is nothing.",
            "type": "array",
            "items": _object("One of them.", ("path", "message"), path={"type": "string"}, message={"type": "string"}),
        },
    ),
    "Deleted": _object("How many.", ("deleted",), deleted=_COUNT),
    "Plugin": _object(
        "One plugin.",
        ("name", "state"),
        name={"type": "string"},
        distribution={"type": "string", "description": "The package that brings it."},
        version={"type": "string"},
        state={"type": "string", "enum": ["ok", "quarantined"]},
        provides={"type": "array", "items": {"type": "string"}},
        remark={"type": "string", "description": "What there is to know about it, although it is no error."},
        error={"type": "string", "description": "Why it is quarantined."},
        traceback={"type": "string"},
    ),
    "Start": _object(
        "What this service is.",
        ("service", "version", "authentication", "links"),
        service={"type": "string", "const": "deployer"},
        version={"type": "string"},
        authentication=_object(
            "How callers prove who they are.",
            ("method",),
            method={"type": "string", "enum": ["none", "jwt", "kubernetes"]},
            audiences={"type": "array", "items": {"type": "string"}},
            issuers={
                "type": "array",
                "items": _object(
                    "Who signs tokens that are good here.",
                    ("name", "issuer", "audience"),
                    name={"type": "string"},
                    issuer={"type": "string"},
                    audience={"type": "string"},
                    clientId={"type": "string"},
                    scopes={"type": "string"},
                ),
            },
        ),
        links={"type": "object", "additionalProperties": {"type": "string"}},
    ),
    "Whoami": _object(
        "Who the caller is to the service.",
        ("namespaces",),
        name={"type": "string", "description": "Missing where nobody has to say who they are."},
        expires={**_TIME, "description": "When the credentials end, as far as that is known."},
        namespaces={
            "type": "array",
            "items": {"type": "string"},
            "description": "Those that have something of the service in them, or that the credentials name, and whose "
            "deployments the caller may list.",
        },
        namespace={"type": "string", "description": "The one that `may` is about, as it was asked for."},
        may={
            "type": "object",
            "description": "By resource the verbs that the caller is allowed there.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
    ),
    "State": _object(
        "How it is.",
        ("status",),
        status={"type": "string", "enum": ["ok", "ready"]},
        replicas={"type": "array", "items": {"$ref": f"{REF}Replica"}},
    ),
    "Replica": _object(
        "A process of the service on the same store.",
        ("name", "self", "reachesCluster", "running", "workers"),
        name={"type": "string"},
        self={"type": "boolean", "description": "It is the one that answers."},
        reachesCluster={"type": "boolean", "description": "While others do and it does not, it takes up nothing."},
        running={**_COUNT, "description": "Operations that it carries out."},
        workers={**_COUNT, "description": "Operations that it may carry out at a time."},
    ),
}
