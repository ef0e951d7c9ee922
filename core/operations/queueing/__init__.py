"""What waits to be carried out, and in which order."""
