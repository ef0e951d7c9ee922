"""Deciding a deployment: what is live, what comes next, and all that is pinned before anything starts."""
