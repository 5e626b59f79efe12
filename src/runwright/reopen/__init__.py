"""Opens a run again from its directory, to evaluate, predict and export. Uses training.build to build its parts."""
