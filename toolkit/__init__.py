"""What strategies and ingress providers are built from: manifests, steps, health rounds, proof by the data plane."""
