"""`auth = "jwt"`: signed tokens, and the keys that they are checked with."""
