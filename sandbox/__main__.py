"""`python -m deployer.sandbox`: the sandbox in the foreground."""

from deployer.sandbox.server import main

if __name__ == "__main__":
    raise SystemExit(main())
