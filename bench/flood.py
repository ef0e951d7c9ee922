"""What a flood of bad tokens costs those who are known.

    python bench/flood.py [--seconds 5] [--connections 32]

One caller who is known reads a deployment as fast as it can: alone, while so many connections send tokens that nobody
signed, and the same on a server that makes no difference between callers. Figures: requests a second of the caller who
is known, its median latency, and how many of the flood's requests were looked at in a second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import auth
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

FLOOD = """
import http.client, json, sys, threading, time
port, path, token, seconds, count = json.loads(sys.argv[1])
statuses = []
def send():
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            while time.monotonic() < end:
                connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
                with connection.getresponse() as response:
                    response.read()
                    statuses.append(response.status)
        except (OSError, http.client.HTTPException):
            continue
threads = [threading.Thread(target=send) for _ in range(count)]
[thread.start() for thread in threads]
print("begun", flush=True)
[thread.join() for thread in threads]
print(statuses.count(401), flush=True)
"""


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    key, foreign = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "key.pem").write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        (good,), (bad,) = auth.make_tokens(key, 1), auth.make_tokens(foreign, 1)
        for name, kind in (("alone", "shared"), ("flood", "shared"), ("flood, all the same", "jwt")):
            command = [sys.executable, auth.__file__, "--serve", directory, kind]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
                assert server.stdin is not None and server.stdout is not None
                place = json.loads(server.stdout.readline())
                path = f"/deployments/{place['id']}/?namespace={auth.NS}"
                auth.read_for(place["port"], path, 0.5, [good], [])
                what = json.dumps([place["port"], path, bad, options.seconds + 1, options.connections])
                flood = None
                if name != "alone":
                    flood = subprocess.Popen([sys.executable, "-c", FLOOD, what], stdout=subprocess.PIPE, text=True)
                    assert flood.stdout is not None
                    flood.stdout.readline()
                latencies: list[float] = []
                reader = threading.Thread(
                    target=auth.read_for, args=(place["port"], path, options.seconds, [good], latencies)
                )
                reader.start()
                reader.join()
                seen = int(flood.communicate()[0]) if flood else 0
                server.stdin.close()
            rate, latency = len(latencies) / options.seconds, statistics.median(latencies) * 1e3
            looked = seen / (options.seconds + 1)
            print(f"  {name:20} {rate:6.0f} requests/s  p50 {latency:6.2f} ms  {looked:6.0f} of the flood looked at/s")


if __name__ == "__main__":
    main()
