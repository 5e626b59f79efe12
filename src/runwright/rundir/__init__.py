"""The files of a run directory: names, writers, readers, trust. Imports no torch; uses config."""
