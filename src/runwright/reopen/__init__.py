"""A run opened again from its directory: evaluate, predict, export. Uses training.build for the parts."""
