"""Asking the data plane, or the pods behind it, which version answers."""
