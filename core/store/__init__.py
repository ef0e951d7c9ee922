"""Where records live. `base.py` is the interface, `sqlite.py` the embedded default."""
