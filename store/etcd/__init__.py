"""Records, logs and leases in etcd, for several processes. `client/gateway.py` alone knows how etcd is spoken to."""
