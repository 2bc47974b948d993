"""Models: networks, pipelines, and the registry that loads them by name."""
