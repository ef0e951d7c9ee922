"""The page for people: files that `web/` is built into, and how they are served."""
