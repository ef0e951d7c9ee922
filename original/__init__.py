"""Taking over what the original Deployer recorded: its records become ours, and its live versions ours to run."""
