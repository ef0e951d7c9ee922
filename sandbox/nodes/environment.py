"""The environment of a container: service links, env, envFrom, valueFrom and $(NAME) references."""

import base64
import re

from deployer.sandbox.kinds import CONFIG_MAP, SECRET, SERVICE, Kind, Object
from deployer.sandbox.store import Store

REFERENCE = re.compile(r"\$(?:\$|\(([^()]+)\))")
SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ConfigError(Exception):
    """The environment cannot be made; the message is the kubelet's for CreateContainerConfigError."""


def environment(store: Store, pod: Object, container: Object) -> dict[str, str]:
    """Raises ConfigError."""
    found = _service_links(store, pod)
    for source in container.get("envFrom") or ():
        found |= _whole(store, pod, source)
    for variable in container.get("env") or ():
        if "valueFrom" in variable:
            value = _value_from(store, pod, variable["valueFrom"])
            if value is None:
                continue
        else:
            value = _expand(variable.get("value", ""), found)
        found[variable["name"]] = value
    return found


def _service_links(store: Store, pod: Object) -> dict[str, str]:
    """Of every Service of the namespace with an address, as pkg/kubelet/envvars makes them."""
    out: dict[str, str] = {}
    if pod["spec"].get("enableServiceLinks") is False:
        return out
    for service in store.list(SERVICE, pod["metadata"]["namespace"]):
        spec, prefix = service["spec"], _variable(service["metadata"]["name"])
        address, ports = spec.get("clusterIP"), spec.get("ports") or ()
        if not address or address == "None" or not ports:
            continue
        out |= {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
        out[f"{prefix}_PORT"] = f"{ports[0]['protocol'].lower()}://{address}:{ports[0]['port']}"
        for port in ports:
            number, protocol = str(port["port"]), port["protocol"]
            if port.get("name"):
                out[f"{prefix}_SERVICE_PORT_{_variable(port['name'])}"] = number
            link = f"{prefix}_PORT_{number}_{protocol}"
            out[link] = f"{protocol.lower()}://{address}:{number}"
            out |= {f"{link}_PROTO": protocol.lower(), f"{link}_PORT": number, f"{link}_ADDR": address}
    return out


def _variable(name: str) -> str:
    text = name.upper().replace("-", "_").replace(".", "_")
    return f"_{text}" if text[0].isdigit() else text


def _expand(text: str, known: dict[str, str]) -> str:
    """$(NAME) of an earlier variable; an unknown name stays as it is; $$ is a dollar sign."""
    return REFERENCE.sub(lambda m: known.get(m[1], m[0]) if m[1] else "$", text)


def _whole(store: Store, pod: Object, source: Object) -> dict[str, str]:
    prefix = source.get("prefix", "")
    for field, kind in (("configMapRef", CONFIG_MAP), ("secretRef", SECRET)):
        if field in source:
            data = _data(store, pod, kind, source[field])
            return {prefix + key: value for key, value in (data or {}).items()}
    return {}


def _value_from(store: Store, pod: Object, source: Object) -> str | None:
    for field, kind in (("configMapKeyRef", CONFIG_MAP), ("secretKeyRef", SECRET)):
        if field in source:
            reference = source[field]
            data = _data(store, pod, kind, reference)
            if data is not None and reference["key"] in data:
                return data[reference["key"]]
            if reference.get("optional"):
                return None
            place = f"{pod['metadata']['namespace']}/{reference['name']}"
            raise ConfigError(f"couldn't find key {reference['key']} in {kind.name} {place}")
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"].get("fieldPath", ""))
    raise ConfigError(f"the sandbox does not support valueFrom.{next(iter(source))}")


def _data(store: Store, pod: Object, kind: Kind, reference: Object) -> dict[str, str] | None:
    """The object's values as text; None when it is missing and optional."""
    obj = store.find(kind, pod["metadata"]["namespace"], reference.get("name", ""))
    if obj is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'{kind.name.lower()} "{reference.get("name", "")}" not found')
    data: dict[str, str] = obj.get("data") or {}
    if kind is SECRET:
        return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
    return data


def _field(pod: Object, path: str) -> str:
    meta, spec, status = pod["metadata"], pod["spec"], pod["status"]
    if subscript := SUBSCRIPT.fullmatch(path):
        return str((meta.get(subscript[1]) or {}).get(subscript[2], ""))
    fields = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": status.get("podIP"),
        "status.hostIP": status.get("hostIP"),
    }
    if path not in fields:
        raise ConfigError(f"the sandbox does not support the field reference {path}")
    return str(fields[path] or "")
