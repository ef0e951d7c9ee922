"""What it costs until the command line answers: processor time of whole processes, and as a multiple of bare Python's.

    python bench/startup.py [--repeat 10]

The time is that of the process, user and system; the figure is the median. The first run of each, which may compile,
does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

SERVER = "(a service without apps)"

MAIN = "import sys; from deployer.cli import main; sys.exit(main())"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import deployer.settings": ["-c", "import deployer.settings"],
    "deployer --help": ["-c", "from deployer.cli import main; main()", "--help"],
    "deployer serve --help": ["-c", "from deployer.cli import main; main()", "serve", "--help"],
    "deployer plugins": ["-c", "from deployer.cli import main; main()", "plugins"],
    "deployer version --client": ["-c", MAIN, "version", "--client"],
    "deployer status": ["-c", MAIN, "status", "--server", SERVER],
    "deployer status -o json": ["-c", MAIN, "status", "-o", "json", "--server", SERVER],
    "deployer lint": ["-c", MAIN, "lint", "examples/shop.json"],
}


def seconds(arguments: list[str]) -> float:
    """Processor time of one run of this Python with `arguments`."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


class Empty(BaseHTTPRequestHandler):
    """A service without apps."""

    def do_GET(self) -> None:
        """`[]`, whatever is asked for."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10)
    repeat = parser.parse_args().repeat
    bare = 0.0
    service = HTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    for name, command in COMMANDS.items():
        arguments = [f"http://127.0.0.1:{service.server_port}" if word == SERVER else word for word in command]
        median = statistics.median([seconds(arguments) for _ in range(repeat + 1)][1:])
        bare = bare or median
        print(f"{name:<30} {median:6.3f} s  {median / bare:6.1f} x")


if __name__ == "__main__":
    main()
