"""Draw docs/pictures/demo.svg: a recording of `deployer demo` as a terminal shows it, in which every line is real.

    python docs/site/demo_picture.py docs/pictures/demo.svg

The demo is run, and each line is kept with the moment at which it came. The picture plays them once; whoever does not
want movement, or whose viewer has none, sees how it ends.
"""

from __future__ import annotations

import html
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

COLUMNS, ROWS = 96, 28
SIZE, LINE, MARGIN, BAR = 13, 18, 16, 30
SPEED = 2.0
"""Times as fast as it was."""

_TIME = re.compile(r"^  (?P<time>\d\d:\d\d:\d\d\.\d{3}) ")
_ROW = re.compile(r"^  (?P<label>requests|answered|latency|switch|version 3|serving|objects|took)\s{2,}")

_STYLE = """\
text{font:%dpx ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#d0d7de;white-space:pre}
.b{font-weight:700;fill:#fff}.d{fill:#8b949e}.g{fill:#3fb950;font-weight:700}.r{fill:#ff7b72}.c{fill:#79c0ff}
"""

Row = tuple[float, str]
"""When it came, in seconds from the start, and the text."""


def record() -> list[Row]:
    """Run the demo. Raises CalledProcessError when it does not end well."""
    began = time.monotonic()
    rows: list[Row] = [(0.0, "$ make demo")]
    command = [Path(sys.executable).parent / "deployer", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            moment = time.monotonic() - began
            folded = textwrap.wrap(line.rstrip("\n"), COLUMNS, subsequent_indent=" " * 15) or [""]
            rows += [(moment, part) for part in folded]
    if demo.returncode:
        raise subprocess.CalledProcessError(demo.returncode, command)
    while not rows[-1][1]:
        rows.pop()
    return rows


def draw(rows: list[Row]) -> str:
    """The whole file."""
    length = rows[-1][0] / SPEED
    width, height = MARGIN * 2 + round(COLUMNS * SIZE * 0.602), BAR + ROWS * LINE + MARGIN
    inner = width - 2 * MARGIN
    hidden = max(0, len(rows) - ROWS)
    # The text moves up by a line for each that comes when the window is full.
    shifts = "".join(
        f"{100 * rows[n][0] / SPEED / length:.2f}%{{transform:translateY({-max(0, n + 1 - ROWS) * LINE}px)}}"
        for n in range(len(rows))
    )
    css = _STYLE % SIZE
    css += f"#s{{transform:translateY({-hidden * LINE}px)}}\n"
    css += "@media (prefers-reduced-motion:no-preference){"
    css += f"#s{{animation:s {length:.1f}s step-end both}}@keyframes s{{{shifts}}}"
    css += "#s text{animation:t 1ms linear backwards}@keyframes t{from{opacity:0}}}"
    lines = "\n".join(_line(n, when / SPEED, text) for n, (when, text) in enumerate(rows))
    said = html.escape("; ".join(text.strip() for _, text in rows[-9:] if text.strip()))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>A terminal in which make demo runs</title>
<desc>{said}</desc>
<style>{css}</style>
<rect width="{width}" height="{height}" rx="8" fill="#0d1117" stroke="#30363d"/>
<circle cx="20" cy="15" r="5" fill="#ff5f57"/>
<circle cx="38" cy="15" r="5" fill="#febc2e"/>
<circle cx="56" cy="15" r="5" fill="#28c840"/>
<svg x="{MARGIN}" y="{BAR}" width="{inner}" height="{ROWS * LINE}" viewBox="0 0 {inner} {ROWS * LINE}">
<g id="s">
{lines}
</g>
</svg>
</svg>
"""


def _line(number: int, when: float, text: str) -> str:
    y = number * LINE + SIZE
    return f'<text y="{y}" style="animation-delay:{when:.2f}s">{_spans(text)}</text>'


def _spans(text: str) -> str:
    """As the demo colours it in a terminal."""
    if not text.startswith(" ") and text:
        return f'<tspan class="b">{html.escape(text)}</tspan>'
    if match := _TIME.match(text):
        return f'  <tspan class="d">{match["time"]}</tspan> {html.escape(text[match.end() :])}'
    if match := _ROW.match(text):
        kind = "g" if ", 0 failed" in text else ""
        return f'{html.escape(text[: match.end()])}<tspan class="{kind}">{html.escape(text[match.end() :])}</tspan>'
    return html.escape(text)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(record()), encoding="utf-8")
