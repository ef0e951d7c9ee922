"""Requests to receivers that the settings name: addresses, signatures, and sending."""
