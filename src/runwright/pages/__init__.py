"""Charts and pages that a browser shows without a network. Imports no torch; uses rundir."""
