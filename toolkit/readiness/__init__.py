"""Waiting for pods, and saying why they do not come."""
