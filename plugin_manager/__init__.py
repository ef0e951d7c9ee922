"""From entry points to a typed registry."""
