"""A real Kubernetes on this machine, from package registries alone, and the story of the handbook told on it."""
