"""A Kubernetes stand-in on loopback, in a process of its own: for the demo and for tests. See README.md."""

from deployer.sandbox.load import Load, Report
from deployer.sandbox.process import Sandbox, SandboxError, start

__all__ = ["Load", "Report", "Sandbox", "SandboxError", "start"]
