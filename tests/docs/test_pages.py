"""Pages that are made from the product are as they would be made now, and what they show as an example is right."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployer.descriptor import normalise
from pages import DOCS, made
from pages.descriptor import fields
from pages.examples import GROUPS, SEE, SMALLEST
from pages.installed import shipped

EXAMPLES = {name: example for examples in GROUPS.values() for name, example in examples.items()}
RULES = dataclasses.replace(shipped(), extensions={"vault": [{}]})


@pytest.mark.parametrize("name", ["cli.md", "commands.md", "descriptor.md", "rest.md", "settings.md"])
def test_a_page_is_made_from_what_is_there(name: str) -> None:
    """`make docs-pages` makes it so."""
    assert (DOCS / name).read_text(encoding="utf-8") == made()[name]


def test_no_page_that_is_made_is_left_out() -> None:
    told = {
        file.name
        for file in DOCS.glob("*.md")
        if "<!-- Made by" in file.read_text() or "<!-- made:" in file.read_text()
    }
    assert told == set(made())


def test_every_field_of_descriptors_has_an_example() -> None:
    assert set(EXAMPLES) == set(fields())
    assert set(SEE) <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_taken_and_has_its_field(name: str) -> None:
    example = EXAMPLES[name]
    taken: dict[str, Any] = normalise({**SMALLEST, **example}, namespace="shop", rules=RULES)
    assert name in example
    assert taken[name] == example[name]


def test_the_smallest_descriptor_is_taken_and_nothing_of_it_can_be_left_out() -> None:
    normalise(SMALLEST, namespace="shop", rules=RULES)
    for name in SMALLEST:
        with pytest.raises(Exception, match=name):
            normalise({key: value for key, value in SMALLEST.items() if key != name}, namespace="shop", rules=RULES)
