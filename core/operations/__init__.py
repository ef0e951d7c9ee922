"""An operation, from its place in the queue to its end."""
