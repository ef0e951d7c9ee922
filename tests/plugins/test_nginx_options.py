"""Tests of what `ingressOptions` and headers may ask of ingress-nginx: only what nginx starts with, for all tenants."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployer.core.model.kind import CONFIG_MAP
from deployer.descriptor.schema_errors import schema_problems
from deployer.plugins.ingress_nginx import options
from deployer.sdk.errors import StepFailed
from deployer.sdk.plugin import Problem
from support.nginx import ONE, SANDBOX, nginx

provider = functools.cache(nginx)


def problems(chosen: dict[str, Any]) -> list[Problem]:
    """What a descriptor with these options is refused for."""
    found = schema_problems(chosen, provider().options_schema or {}, "ingressOptions")
    return found or list(provider().check_descriptor({"ingressOptions": chosen}))


@pytest.mark.parametrize(
    "chosen",
    [
        # "there must be at least 2", and one more than proxy_busy_buffers_size, which is two by default
        {"proxy-buffers-number": 1},
        {"proxy-buffers-number": 2},
        {"proxy-buffers-number": 257},
        # ngx_conf_set_bufs_slot takes no 0, ngx_parse_size no g, and nothing above proxy_max_temp_file_size (1024m)
        {"proxy-buffer-size": "0"},
        {"proxy-buffer-size": "0k"},
        {"proxy-buffer-size": "1g"},
        {"proxy-buffer-size": "4b"},
        {"proxy-buffer-size": "1025k"},
        {"proxy-buffer-size": "999999m"},
        {"proxy-buffer-size": ""},
        {"proxy-buffer-size": "1023"},
        {"client-body-buffer-size": "0"},
        {"client-body-buffer-size": "1G"},
        {"client-body-buffer-size": "65m"},
        {"proxy-body-size": "1t"},
        {"proxy-body-size": "9999999999g"},
        # "connection limit must be less 65536"
        {"limit-connections": 65_536},
        {"limit-connections": 0},
        {"limit-rps": 0},
        {"limit-rpm": -1},
        {"proxy-read-timeout": 10**17},
        {"proxy-connect-timeout": 0},
        {"versionHeader": "X Y"},
        # what Go's net.ParseCIDR and net.ParseIP refuse
        {"whitelist-source-range": "300.0.0.0/8"},
        {"whitelist-source-range": "10.0.0.0/99"},
        {"whitelist-source-range": "::::"},
        {"whitelist-source-range": "10.0.0.0/255.0.0.0"},
        {"whitelist-source-range": "10.0.0/8"},
        {"whitelist-source-range": "010.0.0.1"},
        {"whitelist-source-range": "10.0.0.0/"},
        {"whitelist-source-range": "10.0.0.0/8,"},
        {"whitelist-source-range": "10.0.0.0/8,,::1"},
        {"whitelist-source-range": "10.0.0.0/8 ::1"},
        {"whitelist-source-range": "2001:db8::/129"},
        {"whitelist-source-range": "fe80::1%eth0"},
    ],
    ids=str,
)
def test_what_nginx_or_the_controller_would_not_take_is_refused_by_name(chosen: dict[str, Any]) -> None:
    (name,) = chosen
    assert [problem.path for problem in problems(chosen)] == [f"ingressOptions.{name}"]


@pytest.mark.parametrize(
    "chosen",
    [
        {"proxy-buffers-number": 3},
        {"proxy-buffers-number": 256},
        {"proxy-buffer-size": "1024"},
        {"proxy-buffer-size": "1M"},
        {"proxy-buffer-size": "16k", "proxy-buffers-number": 8},
        {"proxy-body-size": "0"},
        {"proxy-body-size": "10g"},
        {"client-body-buffer-size": "64m"},
        {"limit-connections": 65_535},
        {"whitelist-source-range": "10.0.0.0/8, 2001:db8::/32"},
        {"whitelist-source-range": "10.1.2.3/8"},  # the controller takes bits of the host away
        {"whitelist-source-range": " 10.1.2.3 ,::1,  ::ffff:10.0.0.1/104"},
        {"versionHeader": ""},
        {"versionHeader": "X-Version"},
    ],
    ids=str,
)
def test_what_they_take_is_taken(chosen: dict[str, Any]) -> None:
    assert problems(chosen) == []


def test_options_that_are_fine_alone_may_be_too_much_together() -> None:
    assert problems({"proxy-buffer-size": "1m", "proxy-buffers-number": 16}) == []
    (problem,) = problems({"proxy-buffer-size": "1m", "proxy-buffers-number": 17})
    assert problem.path == "ingressOptions.proxy-buffers-number"
    assert problem.message.endswith("at most 16 of that size")


def _bytes(size: str) -> int:
    return int(size.rstrip("kKmM")) * {"k": 1024, "m": 1024**2}.get(size[-1].lower(), 1)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "proxy-buffer-size": st.builds(
                "{}{}".format, st.integers(0, 2000), st.sampled_from(["", "k", "K", "m", "M"])
            ),
            "proxy-buffers-number": st.integers(-1, 300),
        },
    )
)
def test_nginx_starts_with_whatever_is_accepted(chosen: dict[str, Any]) -> None:
    """Its own conditions (ngx_http_proxy_merge_loc_conf), beside the controller's defaults."""
    if problems(chosen):
        return
    size, number = _bytes(chosen.get("proxy-buffer-size", "4k")), chosen.get("proxy-buffers-number", 4)
    busy, longest_file = 2 * size, 1024 * 1024**2
    assert size > 0 and number >= 2
    assert size <= busy <= (number - 1) * size
    assert size <= longest_file


def test_options_without_effect_are_remarked_on() -> None:
    chosen = {"cors-max-age": 60, "cors-allow-origin": "*", options.VERSION_HEADER: "X-Version"}
    remarks = provider().remarks({"ingressOptions": chosen})
    assert [remark.path.removeprefix("ingressOptions.") for remark in remarks] == sorted(chosen)
    stable = nginx(mode="stable-service")
    assert list(stable.remarks({"ingressOptions": {**chosen, "enable-cors": True}})) == []


def test_a_header_is_no_longer_than_a_parameter_of_nginx() -> None:
    """4,096 characters (NGX_CONF_BUFFER); a longer one ends the whole configuration."""

    def found(name: str, length: int) -> list[Problem]:
        return list(provider().check_descriptor({"additionHttpHeaders": [{"Header": name, "Value": "a" * length}]}))

    assert found("X-Long", 3994) == []
    (problem,) = found("X-Long", 3995)
    assert (problem.path, problem.message) == (
        "additionHttpHeaders[0].Value",
        "nginx takes at most 3994 characters beside that name",
    )


def test_headers_are_written_as_the_controllers_list_spells_them(site, allowing) -> None:
    """It compares them letter by letter, and answers 503 for the whole host when one differs in case."""
    allowing("X-Frame-Options, x-deployer-revision")
    listing = nginx(**SANDBOX, allowed_headers=["X-Frame-Options", "x-deployer-revision"])
    headers = (("x-frame-options", "DENY"),)
    assert listing.check_descriptor({"additionHttpHeaders": [{"Header": headers[0][0], "Value": "DENY"}]}) == []
    site.expose(listing, "1", headers=headers)
    assert site.fetch() == (200, "1", ONE)
    (config_map,) = site.client.list(CONFIG_MAP, site.namespace)[0]
    assert config_map["data"] == {"X-Frame-Options": "DENY", "x-deployer-revision": ONE}


def test_an_app_may_say_its_version_in_another_header_or_not_at_all(site) -> None:
    """Where the setting names one, an app without it could never be confirmed in mode stable-service."""
    stable = nginx(**SANDBOX, mode="stable-service", version_header="X-Other-Version", propagation_seconds=0.1)
    site.lead("1")
    with pytest.raises(StepFailed, match="was not confirmed in time"):
        site.expose(stable, "1", stable=True, seconds=1.0)
    site.expose(stable, "1", stable=True, options={options.VERSION_HEADER: ""})
    assert "no response header names the version" in "".join(site.log)
    site.log.clear()
    site.expose(stable, "1", stable=True, options={options.VERSION_HEADER: "X-Version"})
    assert site.log == []
    assert site.fetch()[:2] == (200, "1")
