"""What `/metrics` counts of deployments: under which labels, and how many of those there can be."""
