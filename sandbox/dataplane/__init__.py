"""The ingress controller and its proxy, for Ingresses and HTTPRoutes."""
