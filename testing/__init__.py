"""What plugin authors test with; needs no test framework.

`strategies`   what every strategy must do, as checks on a Deployer that runs on a sandbox
`health`       the same for health checkers, on pods that are listeners on loopback
`environment`  the same for environment injectors
`ingress`      the same for ingress providers, on a cluster with a data plane
`service`      a Deployer on a sandbox: deploy, wait, look, kill, start again
`plugins`      plugins that are not installed, loaded as if they were
`fakes`        a step's `Work` and an injector's context without a cluster, for unit tests
`pods`         a pod that answers byte for byte what a test of a health checker wants
`descriptors`  descriptors of the sample app, and plans for them

Nothing in the service itself imports it.
"""
