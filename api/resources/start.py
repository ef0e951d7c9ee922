"""The pages for people who come with a browser: where to begin, and what they get where there is nothing."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import deployer
from deployer.api.openapi.page import pre, whole

Page = tuple[bytes, str]
"""HTML, and the Content-Security-Policy that it needs."""

_LINKS = (
    ("/docs", "the REST API for people: every route with an example, every field of a descriptor"),
    ("/openapi.json", "the same for programs, as OpenAPI 3.1"),
    ("/plugins", "the installed strategies, health checkers and ingress providers"),
    ("/readyz", "whether deployments can be carried out, and if not, why"),
    ("/healthz", "whether the process answers"),
    ("/metrics", "figures for Prometheus"),
)
_GUARDED = ("/plugins", "/metrics")
_NEEDED = "They need a token, of those that this service accepts. "

_DESCRIPTOR = """\
{
  "namespace": "default",
  "appName": "my-app",
  "newVersion": "#",
  "podspec": {
    "containers": [
      {
        "name": "web",
        "image": "registry.example.com/my-app:1",
        "ports": [{"containerPort": 8080}]
      }
    ]
  }
}"""


def start(secured: bool) -> Page:
    """What this is, where to go, and the first requests. `secured`: callers need a token."""
    token = '-H "Authorization: Bearer $TOKEN" ' if secured else ""
    before = ['API=<span class="origin">http://127.0.0.1:8000</span>']
    main = [
        f"<header><h1>Deployer <small>{escape(deployer.__version__)}</small></h1>",
        "<p>Blue-green deployments for Kubernetes. This service starts the new version of an app beside the old one, "
        "checks that it is ready and healthy, and only then moves the traffic.</p></header>",
        "<h2>Where to go</h2>",
        f'<dl class="links">{"".join(_entries(secured))}</dl>',
        "<h2>First requests</h2>",
        f"<p>{_NEEDED if secured else ''}This lists the deployments in a namespace:</p>",
        pre([*before, *(["TOKEN=..."] if secured else []), _curl(token, '"$API/deployments/?namespace=default"')]),
        "<p>To deploy an app, describe it in a file, here <code>my-app.json</code>:</p>",
        pre([escape(_DESCRIPTOR, quote=False)]),
        "<p>Store it, deploy it with the <code>id</code> of the answer as <code>$DESCRIPTOR</code>, and follow what "
        "becomes of it in the log, with the <code>id</code> of that answer as <code>$ID</code>:</p>",
        pre(
            [
                _curl(token, '-d @my-app.json "$API/descriptors/?namespace=default"'),
                _curl(token, '-X POST "$API/deployments/?namespace=default&descriptorId=$DESCRIPTOR"'),
                _curl(token, '"$API/deployments/$ID/logs?namespace=default"'),
            ]
        ),
    ]
    return whole("Deployer", "".join(main))


def missing() -> Page:
    """The 404 of a browser. It repeats nothing of the request."""
    text = 'There is nothing at this address. The <a href="/">start page</a> says what there is.'
    return whole("Not found", f"<header><h1>Not found</h1><p>{text}</p></header>")


def _entries(secured: bool) -> Iterable[str]:
    for path, text in _LINKS:
        note = " (with your token)" if secured and path in _GUARDED else ""
        yield f'<dt><a href="{path}">{path}</a></dt><dd>{escape(text)}{note}</dd>'


def _curl(token: str, rest: str) -> str:
    return escape(f"curl {token}{rest}", quote=False)
