"""The site that `make docs` builds from the Markdown of this repository, which stays readable where it is."""

from __future__ import annotations

import posixpath
import re
import textwrap

from sphinx.application import Sphinx

import deployer

project = "Deployer"
author = "The Deployer's authors"
release = version = deployer.__version__
project_copyright = author

# The source is the whole repository, so that a link leads to the same page here as on GitHub.
root_doc = "docs/README"
include_patterns = ["*.md", "docs/*.md", "bench/*.md", "plugins/*/README.md", "deploy/**/README.md", "*/README.md"]
exclude_patterns = [".*", "src", "build", "dist", "tests/*/**"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
myst_heading_anchors = 4
autodoc_default_options = {"members": True, "imported-members": True, "undoc-members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# Types of the standard library, and of ours that are not exported, are named and have no page.
nitpick_ignore_regex = [("py:.*", r"(?!deployer\.(sdk|testing)\.[a-z]+\.[A-Z][a-z]+$).*|.*\.(Asked|Found)")]
copybutton_exclude = ".linenos, .gp, .go"

smartquotes = False  # two dashes are a flag's

linkcheck_ignore = [r"https?://[^/]*\bexample\b", r"https?://(localhost|127\.)"]

html_theme = "furo"
html_title = f"Deployer {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_extra_path = ["start"]  # leads from the site's root to the page of contents

_LIST = re.compile(r"^- \[(?P<title>[^]]+)\]\((?P<target>[^)#]+\.md)\)", re.MULTILINE)

_ENTRY = re.compile(r"^(?P<name>`?\w[\w.,= ()]*?`?)\s{2,}(?P<text>\S.*)")


def _contents(_: Sphinx, docname: str, source: list[str]) -> None:
    """Make the site's navigation of the lists on the page of contents, of which each section is one."""
    if docname != root_doc:
        return
    folder = posixpath.dirname(docname)
    for section in re.split(r"^## ", source[0], flags=re.MULTILINE)[1:]:
        caption = section.partition("\n")[0]
        links = ((m["title"], posixpath.normpath(posixpath.join(folder, m["target"]))) for m in _LIST.finditer(section))
        entries = [f"{title} </{page}>" for title, page in links]
        source[0] += "\n".join(["\n\n```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```\n"])


def _prose(_: Sphinx, _what: str, _name: str, _of: object, _options: object, lines: list[str]) -> None:
    """Make what Sphinx reads of our docstrings, which are prose with `code` and lists of a name and what it means."""
    text = "\n".join(lines).strip("\n")
    lines[:] = [line for paragraph in re.split(r"\n\s*\n", text) for line in (*_paragraph(paragraph), "")]


def _paragraph(text: str) -> list[str]:
    indented = all(row.startswith("    ") for row in text.split("\n"))
    rows = textwrap.dedent(text).split("\n")
    if not all(_ENTRY.match(row) or row.startswith("  ") for row in rows):
        return ["::", "", *(f"   {row}" for row in rows)] if indented else [_inline(" ".join(map(str.strip, rows)))]
    entries: list[list[str]] = []
    for row in rows:
        if match := _ENTRY.match(row):
            entries.append([match["name"].strip("`"), match["text"]])
        else:
            entries[-1][1] += f" {row.strip()}"
    return [f"- ``{name}``: {_inline(text)}" for name, text in entries]


def _inline(text: str) -> str:
    """Code stays code; nothing else is markup."""
    parts = re.split(r"`([^`]+)`", text)
    return "".join(f"``{part}``" if n % 2 else re.sub(r"([*_|\\])", r"\\\1", part) for n, part in enumerate(parts))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect what is above; called by Sphinx."""
    app.connect("source-read", _contents)
    app.connect("autodoc-process-docstring", _prose)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
