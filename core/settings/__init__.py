"""The service's settings: one table of options, read from flags, DEPLOYER_* variables and a TOML file.

`Settings` is that table, and `OPTIONS` what the command line and the documentation are made from.
"""

from deployer.core.settings.checks import PATH
from deployer.core.settings.consistency import check_auth, check_exposure
from deployer.core.settings.hosts import DNS_LABEL, DNS_SUBDOMAIN, is_loopback, www_twin
from deployer.core.settings.options import Option
from deployer.core.settings.sources import CONFIG_ENV, load, translate_original_flags
from deployer.core.settings.table import OPTIONS, Settings, option

__all__ = [
    "CONFIG_ENV",
    "DNS_LABEL",
    "DNS_SUBDOMAIN",
    "OPTIONS",
    "PATH",
    "Option",
    "Settings",
    "check_auth",
    "check_exposure",
    "is_loopback",
    "load",
    "option",
    "translate_original_flags",
    "www_twin",
]
