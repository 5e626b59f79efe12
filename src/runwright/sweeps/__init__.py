"""Several runs: their names, grid and search, the leaderboard. Imports no torch; uses config and rundir."""
