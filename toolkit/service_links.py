"""Service links: the variables that Kubernetes puts into pods for every Service of their namespace, the app's own too.

The unversioned Service of an app is made by its first deployment, so the pods of the second one are the first to have
variables of it: `HEALTH_PORT=tcp://10.0.0.1:8080` for an app named `health`. Software that takes such a variable for
its own setting then does not start. What a container sets itself wins. Names follow `pkg/kubelet/envvars` and
precedence `pkg/kubelet/kubelet_pods.go` of Kubernetes; see
https://kubernetes.io/docs/tutorials/services/connect-applications-service/#accessing-the-service
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deployer.core.errors import Problem, StepFailed
from deployer.core.model.names import service_name
from deployer.core.model.records import Document
from deployer.toolkit.manifests import service_ports

_READ_AS_PORT = frozenset(
    f"{name}_PORT"
    for name in (
        # What many programs and templates call the port they listen on, each with reports of exactly this collision:
        # SERVER_PORT (Spring Boot's server.port, Kibana), WEBHOOK_PORT (Knative), HEALTH_PORT, APP_PORT, ...
        *("ADMIN", "API", "APP", "BACKEND", "FRONTEND", "GATEWAY", "GRPC", "HEALTH", "HEALTHCHECK", "HTTP", "HTTPS"),
        *("LISTEN", "MANAGEMENT", "METRICS", "NODE", "PROXY", "SERVER", "SERVICE", "UI", "WEB", "WEBHOOK"),
        # Frameworks, where an app has the name of the rest: QUARKUS_HTTP_PORT, STREAMLIT_SERVER_PORT, ...
        *("FLASK_RUN", "MANAGEMENT_SERVER", "MICRONAUT_SERVER", "NITRO", "QUARKUS_HTTP", "ROCKET", "STREAMLIT_SERVER"),
        # Products that read their own name: n8n, Superset and Dify are known to end over it.
        *("BACKREST", "DIFY", "FLOWER", "KAFKA", "KAFKA_REST", "MLFLOW", "N8N", "SCHEMA_REGISTRY", "SUPERSET"),
        # Where clients, perhaps of the same image, look for a database.
        *("DATABASE", "DB", "MONGO", "MYSQL", "POSTGRES", "RABBITMQ", "REDIS"),
    )
)
"""Variables that commonly hold a port number. Not complete, nor can it be: any program may read `<OWN NAME>_PORT`."""

_NOT_STARTED = frozenset({"NotReady", "CrashLoop", "Unhealthy"})
"""Reasons of failures behind which a wrong setting may be."""


def variables(descriptor: Mapping[str, Any]) -> list[str]:
    """The names of the variables that the app's own Service makes; none when it gets no Service."""
    prefix = _prefix(descriptor)
    ports = service_ports(dict(descriptor))
    if not ports:
        return []
    out = [f"{prefix}_PORT", f"{prefix}_SERVICE_HOST", f"{prefix}_SERVICE_PORT"]
    out += [f"{prefix}_SERVICE_PORT_{_variable(port['name'])}" for port in ports]
    for port in ports:
        link = f"{prefix}_PORT_{port['port']}_{port['protocol']}"
        out += [link, *(f"{link}_{part}" for part in ("PROTO", "PORT", "ADDR"))]
    return out


def remarks(descriptor: Mapping[str, Any], *, by_default: bool) -> Iterator[Problem]:
    """What may surprise: variables of the app's own Service that it is likely to read, or that the podspec sets.

    by_default   whether pods have service links when the podspec does not say (the setting)
    """
    if not _linked(descriptor["podspec"], by_default):
        return
    made = frozenset(variables(descriptor))
    port = f"{_prefix(descriptor)}_PORT"
    if port in made & _READ_AS_PORT and not _set_everywhere(descriptor["podspec"], port):
        yield Problem(
            "appName",
            f"from the second deployment on, Kubernetes sets {port}=tcp://... in the pods, for the app's own Service; "
            f"if the app reads {port} as a setting, put enableServiceLinks: false into the podspec",
        )
    for path, name in _own_variables(descriptor["podspec"]):
        if name in made:
            yield Problem(
                path,
                f"Kubernetes also makes {name}, for the app's own Service; this value wins in this container, and "
                "enableServiceLinks: false in the podspec keeps the other one out everywhere",
            )


def explained(failed: StepFailed, descriptor: Mapping[str, Any], podspec: Mapping[str, Any], log: str) -> StepFailed:
    """The failure of a version that did not start, with a hint when the app's own Service may be the reason.

    podspec   as it was deployed, with the app's Service there
    log       the deployment's log: it shows whether the app stumbled over the variable
    """
    port = f"{_prefix(descriptor)}_PORT"
    made = variables(descriptor)
    if failed.reason not in _NOT_STARTED or not made or not _linked(podspec, True) or _set_everywhere(podspec, port):
        return failed
    # What some container sets is read by the app, and in the others the value is not theirs.
    read = [name for _, name in _own_variables(podspec) if name in made and not _set_everywhere(podspec, name)]
    if port not in _READ_AS_PORT and not read and not _stumbled(descriptor, log):
        return failed
    name = read[0] if read else port
    value = "=tcp://..." if name == port else ""
    hint = (
        f"if the app reads {name} as a setting, put enableServiceLinks: false into the podspec: since the first "
        f"deployment Kubernetes sets {name}{value} for the app's own Service"
    )
    hint = f"{hint}; or {failed.hint}" if failed.hint else hint
    return StepFailed(str(failed), reason=failed.reason, pod=failed.pod, hint=hint)


def _stumbled(descriptor: Mapping[str, Any], log: str) -> bool:
    """True when the log names the variable or its value: `tcp://10.0.0.1:80`, or what gunicorn makes of it, `'tcp'`."""
    numbers = "|".join(str(port["port"]) for port in service_ports(dict(descriptor)))
    return bool(re.search(rf"\b{_prefix(descriptor)}_PORT\b|\btcp://[0-9a-fA-F.:\[\]]+:({numbers})\b|'tcp'", log))


def _linked(podspec: Mapping[str, Any], by_default: bool) -> bool:
    said = podspec.get("enableServiceLinks")
    return by_default if said is None else said is not False


def _set_everywhere(podspec: Mapping[str, Any], name: str) -> bool:
    """True when every container that runs with the app sets the variable itself."""
    return all(any(v.get("name") == name for v in c.get("env") or ()) for c in podspec["containers"])


def _own_variables(podspec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Path and name of every variable of the podspec."""
    for kind in ("initContainers", "containers"):
        containers: Iterable[Document] = podspec.get(kind) or ()
        for n, container in enumerate(containers):
            for m, variable in enumerate(container.get("env") or ()):
                yield f"podspec.{kind}[{n}].env[{m}].name", variable["name"]


def _prefix(descriptor: Mapping[str, Any]) -> str:
    return _variable(service_name(descriptor["appName"]))


def _variable(name: str) -> str:
    return name.upper().replace("-", "_").replace(".", "_")
