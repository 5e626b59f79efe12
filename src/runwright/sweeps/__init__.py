"""Several runs: names, the grid and the search that start them, the leaderboard. Imports no torch; uses rundir."""
