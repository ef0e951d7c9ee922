"""What keeps one caller from taking everything: lists that are read in pieces, and quotas of namespaces."""
