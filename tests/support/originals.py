"""The objects of the original deployer, exactly as it leaves them (amdatu-kubernetes-deployer of 2017-10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployer.core.model.kind import Kind
from deployer.kube.client import KubeClient
from deployer.sdk.kube import CONTROLLER, INGRESS, SERVICE

Object = dict[str, Any]


def ingress(app: str, host: str, service: str, port: int, secret: str, **annotations: str) -> Object:
    """`setRules` and `setTlsConfig` of proxies/ingress_config.go, as v1 shows it; annotations get the old prefix."""
    notes = {f"ingress.kubernetes.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    backend = {"service": {"name": service, "port": {"number": port}}}
    return {
        "apiVersion": INGRESS.api_version,
        "kind": "Ingress",
        "metadata": {"name": app, "annotations": {"kubernetes.io/ingress.class": "nginx", **notes}},
        "spec": {
            "rules": [{"host": host, "http": {"paths": [{"pathType": "ImplementationSpecific", "backend": backend}]}}],
            "tls": [{"hosts": [host], "secretName": secret}],
        },
    }


def www_redirect(app: str, host: str, port: int, port_name: str, secret: str) -> Object:
    """Leads to the Service that stays; by the port's name where it has one."""
    snippet = f"rewrite ^/(.*)$ https://{host}/$1 permanent;"
    made = ingress(app, f"www.{host}", app, port, secret, configuration_snippet=snippet)
    made["metadata"]["name"] = f"{app}-www-redirect"
    if port_name:
        made["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] = {"name": port_name}
    return made


def objects(
    host: str,
    image: str,
    *,
    app: str = "shop",
    version: str = "41",
    port: int = 8080,
    port_name: str = "",
    secret: str = "shop-tls",
    www: bool = False,
    deployment: str = "0b5b5a6e",
    **annotations: str,
) -> Sequence[tuple[Kind, Object]]:
    """All that an exposed version consists of, in the order of creation."""
    name = f"{app}-{version}"
    labels = {"name": name, "version": version, "app": app}
    named = {"name": port_name} if port_name else {}
    container: Object = {
        "name": "web",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": port, **named}],
        "env": [{"name": "APP_NAME", "value": app}, {"name": "APP_VERSION", "value": version}],
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }
    about = {"deploymentId": deployment, "deploymentTs": "2017-10-12T14:30:32Z", "appName": app, "version": version}
    about |= {"useHealthCheck": "false", "healthCheckPath": "", "healthCheckPort": "0", "healthCheckType": ""}
    about |= {"frontend": host}
    common = {"type": "ClusterIP", "sessionAffinity": "None"}
    ports = [{**named, "port": port, "targetPort": port, "protocol": "TCP"}]
    by_name = [{**named, "port": port, "targetPort": port_name or port, "protocol": "TCP"}]
    stays = {"app": app, "name": app, "persistent": "true"}

    def made(kind: Kind, metadata: Object, spec: Object) -> tuple[Kind, Object]:
        return kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}

    found = [
        made(
            CONTROLLER,
            {"name": name, "labels": labels, "annotations": about},
            {"replicas": 1, "selector": labels, "template": template},
        ),
        made(SERVICE, {"name": name, "labels": labels}, {**common, "selector": labels, "ports": ports}),
        made(
            SERVICE,
            {"name": app, "labels": stays},
            {**common, "selector": {"app": app, "version": version}, "ports": by_name},
        ),
    ]
    if host:
        found.append((INGRESS, ingress(app, host, name, port, secret, **annotations)))
        if www:
            found.append((INGRESS, www_redirect(app, host, port, port_name, secret)))
    return found


def leave(client: KubeClient, namespace: str, host: str, image: str, **more: Any) -> None:
    """Make them."""
    for kind, body in objects(host, image, **more):
        client.create(kind, body, namespace)
