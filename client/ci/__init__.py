"""What runners of pipelines tell a command, and what they like to be told."""
