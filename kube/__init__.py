"""The only door to Kubernetes: client, informers, ownership and fencing."""
