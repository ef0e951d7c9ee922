"""What can be said of a podspec without a cluster: rules, types, Pod Security."""
