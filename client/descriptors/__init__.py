"""Descriptors as people write them: files of JSON and YAML, where things stand in them, what flags put in."""
