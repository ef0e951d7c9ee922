"""The plugins that come with the Deployer. Each is found through its entry point and uses only `deployer.sdk`."""
