"""The page docs/settings.md, made from the table of settings: `python -m deployer.cli.reference > docs/settings.md`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

from deployer.settings import CONFIG_ENV, OPTIONS, Option

_HEAD = f"""\
# Settings

<!-- Made by `python -m deployer.cli.reference > docs/settings.md`; do not edit. -->

Every setting can be given in three ways. A flag wins over a variable, a variable over the file, the file over the
default.

| | name | example |
|---|---|---|
| flag | `--` and the name with `-` | `deployer serve --start-timeout 120` |
| variable | `DEPLOYER_` and the name in capitals | `DEPLOYER_START_TIMEOUT=120` |
| TOML file | the name with `_` | `start_timeout = 120` |

The file is the one that `--config` or the variable `{CONFIG_ENV}` names. A flag, variable or key that does not
exist is an error, and so is a value that makes no sense: the service then says which in one sentence and does not
start.

Durations are seconds, fractions allowed. A switch has a second flag that turns it off (`--no-...`); as a variable it
takes `true` or `false`. Settings with several names take them separated by commas, and as a flag also repeatedly.

The flags of the original Deployer work with one dash or two, also without the command: `deployer -kubernetes
http://localhost:8080 -timeout=30`. They are in the last column.
"""

_COLUMNS = """
| setting | default | meaning | original |
|---|---|---|---|
"""

_EXAMPLE = """
## Example

```toml
kubernetes_token_file = "/etc/deployer/token"
proxysleep = 30
protected_namespaces = ["kube-*", "monitoring"]

[namespace_hosts]
shop = ["shop.example.com", "*.shop.example.com"]

[tls_secrets]
"example.com" = "example-com-tls"

[plugins.ingress_nginx]
controller = "ingress-nginx/ingress-nginx-controller"
revision_header = true
```

Without `--kubernetes` the service uses the account of the pod it runs in; without one, the kubeconfig. What plugins
take is in their own pages: [ingress_nginx](../plugins/ingress_nginx/README.md),
[ingress_gateway](../plugins/ingress_gateway/README.md), [env_etcd](../plugins/env_etcd/README.md),
[notify_webhook](../plugins/notify_webhook/README.md), [gate_prometheus](../plugins/gate_prometheus/README.md),
[traces_otel](../plugins/traces_otel/README.md).
"""


def settings_page() -> str:
    """The whole page."""
    sections = (_section(subject, list(of)) for subject, of in itertools.groupby(OPTIONS, lambda o: o.subject))
    return "".join([_HEAD, *sections, _EXAMPLE])


def _section(subject: str, options: Sequence[Option]) -> str:
    rows = "".join(map(_row, (option for option in options if option.flag)))
    tables = "".join(f"- `{option.name}`: {_text(option.help)}\n" for option in options if not option.flag)
    return f"\n## {subject}\n" + (_COLUMNS + rows if rows else "") + ("\n" + tables if tables else "")


def _row(option: Option) -> str:
    name = f"`{option.name}`" + (f" ({_choices(option)})" if option.choices else "")
    default = f"`{option.shown}`" if option.default else option.shown
    original = f"`-{option.original}`" if option.original else ""
    return f"| {name} | {default} | {_text(option.help)} | {original} |\n"


def _text(text: str) -> str:
    """Without what Markdown would read as a tag or as emphasis."""
    return text.replace("<", "&lt;").replace("*", "\\*")


def _choices(option: Option) -> str:
    return ", ".join(f"`{choice}`" if choice else "empty" for choice in option.choices)


if __name__ == "__main__":
    sys.stdout.write(settings_page())
