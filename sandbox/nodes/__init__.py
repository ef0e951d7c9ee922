"""The node: the kubelet, its pods as local processes, and the sample program that they run."""
