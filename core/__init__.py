"""The framework: carries an operation to its end. What plugin authors import is `deployer.sdk`."""
