"""What the core asks of the rooms above it: protocols, implemented by store, toolkit, redaction and settings."""
