"""Carrying out what the state machine says: threads, deadlines, handles, and what is written."""
