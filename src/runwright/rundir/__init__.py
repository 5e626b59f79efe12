"""The files of a run directory: names, writers, readers, safety checks. Imports no torch; uses config."""
