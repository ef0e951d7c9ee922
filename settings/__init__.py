"""The service's settings: one table of options, read from flags, DEPLOYER_* variables and a TOML file.

`Settings` is that table, and `OPTIONS` what the command line and the documentation are made from.
"""

from deployer.settings.consistency import check_auth, check_exposure
from deployer.settings.options import Option
from deployer.settings.sources import CONFIG_ENV, load, translate_original_flags
from deployer.settings.table import OPTIONS, Settings, option

__all__ = [
    "CONFIG_ENV",
    "OPTIONS",
    "Option",
    "Settings",
    "check_auth",
    "check_exposure",
    "load",
    "option",
    "translate_original_flags",
]
