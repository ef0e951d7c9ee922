"""Rounds of health checks over the pods of a version, and how the pods are reached."""
