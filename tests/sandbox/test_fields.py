"""The field names of strict decoding are those of the official client that is installed."""

import importlib.util
from pathlib import Path

import pytest


def test_the_field_table_is_current():
    place = Path(__file__).with_name("fields_generator.py")
    spec = importlib.util.spec_from_file_location("fields_generator", place)
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    if generator.client.__version__.split(".")[0] != generator.CLIENT:
        pytest.skip(f"fields.json is made from version {generator.CLIENT} of the kubernetes client")
    assert generator.FILE.read_text() == generator.text()
