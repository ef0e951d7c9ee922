"""Where records, logs and leases are kept: implementations of `deployer.core.ports.store`."""
