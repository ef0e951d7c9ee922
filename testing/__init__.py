"""What plugin authors test with; needs no test framework.

`service`     a Deployer on a sandbox: deploy, wait, look, kill, start again
`strategies`  what every strategy must do, as checks on such a service
`fakes`       a step's `Work` without a cluster, for unit tests

Nothing in the service itself imports it.
"""
