"""Following a deployment until something is so, and saying what happens on the way."""
