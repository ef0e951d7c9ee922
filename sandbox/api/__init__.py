"""The API server's HTTP side: paths and queries, watches, discovery, the pod proxy."""
