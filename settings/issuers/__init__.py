"""Whose tokens are good, and what each of them allows: the tables `[[issuers]]`."""
