"""The steps that strategies share. Each looks at the cluster, so it can be run and undone any number of times."""
