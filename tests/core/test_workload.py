"""Tests of what the steps share that needs no cluster."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.toolkit.workload import keep_node_ports


def port(number: int, name: str = "", node: int = 0, protocol: str = "TCP") -> dict[str, Any]:
    made: dict[str, Any] = {"port": number, "protocol": protocol}
    return made | ({"name": name} if name else {}) | ({"nodePort": node} if node else {})


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        # the original names no port whose container port has no name
        ([port(8080, node=32527)], [port(8080, "port-8080")], [32527]),
        ([port(8080, "http", 32527)], [port(8081, "http")], [32527]),
        ([port(8080, "web", 32527)], [port(8080, "http")], [32527]),
        ([port(8080, node=32527)], [port(9090, "port-9090")], [None]),
        ([port(53, "dns", 30053, "UDP"), port(53, "dns-tcp", 30054)], [port(53, "tcp")], [30054]),
        # a name counts before a number, and no nodePort is given twice
        ([port(80, "a", 30001)], [port(81, "a"), port(80, "b")], [30001, None]),
        ([port(80, "a", 30001), port(81, "b", 30002)], [port(80, "b"), port(81, "a")], [30002, 30001]),
        ([], [port(80, "a")], [None]),
    ],
)
def test_node_ports_are_kept_by_name_and_else_by_number(
    old: list[dict[str, Any]], new: list[dict[str, Any]], kept: list[int | None]
) -> None:
    assert [found.get("nodePort") for found in keep_node_ports(old, new)] == kept
