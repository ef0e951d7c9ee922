"""Where a request's token comes from."""
