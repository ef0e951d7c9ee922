"""Logs of deployments in etcd: where lines are, and how they get there."""
