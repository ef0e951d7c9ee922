"""The commands that bring their own cluster: `deployer sandbox` and `deployer demo`."""
