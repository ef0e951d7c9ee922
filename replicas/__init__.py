"""Several processes on one store: leases that are kept, who else is there, and whose turn it is."""
