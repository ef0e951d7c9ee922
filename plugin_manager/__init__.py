"""Plugins, from their entry points to the core's registry, and observers, who are told of deployments."""
