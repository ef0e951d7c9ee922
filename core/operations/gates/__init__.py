"""Gates among the steps of an operation."""
