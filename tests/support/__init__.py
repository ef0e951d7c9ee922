"""What several tests share. `world.py` is a Deployer on a sandbox, with eyes on both."""
