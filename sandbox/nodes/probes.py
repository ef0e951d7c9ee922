"""Readiness probes of the kinds httpGet and tcpSocket, as the kubelet does them."""

import asyncio

import aiohttp

from deployer.sandbox.kinds import Object


async def probe(session: aiohttp.ClientSession, spec: Object, address: str, container: Object) -> str:
    """One attempt: an empty string when it passes, else what the kubelet would say."""
    timeout = spec["timeoutSeconds"]
    try:
        async with asyncio.timeout(timeout):
            if "httpGet" in spec:
                return await _http(session, spec["httpGet"], address, container)
            return await _tcp(spec["tcpSocket"], address, container)
    except TimeoutError:
        return f"no answer from {address} within {timeout} s: context deadline exceeded"


def port_number(port: int | str, container: Object) -> int | None:
    """A port by number, or by the name that the container gives it."""
    if isinstance(port, int):
        return port
    named = {p.get("name"): p["containerPort"] for p in container.get("ports") or ()}
    return int(port) if port.isdigit() else named.get(port)


async def _http(session: aiohttp.ClientSession, get: Object, address: str, container: Object) -> str:
    if get["scheme"] != "HTTP":
        return "the sandbox does not support probes over HTTPS"
    port, path = port_number(get["port"], container), "/" + get["path"].lstrip("/")
    # A probe of another host than the pod would let a descriptor send requests anywhere.
    if get.get("host", address) != address:
        return "the sandbox does not support probes of a host other than the pod"
    if port is None:
        return f'couldn\'t find port: "{get["port"]}" in container {container["name"]}'
    headers = {header["name"]: header["value"] for header in get.get("httpHeaders") or ()}
    url = f"http://{address}:{port}{path}"
    try:
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            return "" if answer.status < 400 else f"HTTP probe failed with statuscode: {answer.status}"
    except aiohttp.ClientConnectorError:
        return f'Get "{url}": dial tcp {address}:{port}: connect: connection refused'
    except (aiohttp.ClientError, ValueError) as error:
        return f'Get "{url}": {error}'


async def _tcp(socket: Object, address: str, container: Object) -> str:
    port = port_number(socket["port"], container)
    if socket.get("host", address) != address:
        return "the sandbox does not support probes of a host other than the pod"
    if port is None:
        return f'couldn\'t find port: "{socket["port"]}" in container {container["name"]}'
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return f"dial tcp {address}:{port}: connect: connection refused"
    writer.close()
    return ""
