"""The only door to Kubernetes: verbs on dicts, shared list-watch mirrors, ownership, and why a pod is not ready."""
