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

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import deployer.settings": ["-c", "import deployer.settings"],
    "deployer --help": ["-c", "from deployer.cli import main; main()", "--help"],
    "deployer serve --help": ["-c", "from deployer.cli import main; main()", "serve", "--help"],
    "deployer plugins": ["-c", "from deployer.cli import main; main()", "plugins"],
}


def seconds(arguments: list[str]) -> float:
    """Processor time of one run of this Python with `arguments`."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10)
    repeat = parser.parse_args().repeat
    bare = 0.0
    for name, arguments in COMMANDS.items():
        median = statistics.median([seconds(arguments) for _ in range(repeat + 1)][1:])
        bare = bare or median
        print(f"{name:<30} {median:6.3f} s  {median / bare:6.1f} x")


if __name__ == "__main__":
    main()
