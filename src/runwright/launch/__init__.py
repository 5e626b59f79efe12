"""From the command line to jobs and their processes. Imports no torch until a job trains; uses all other packages."""
