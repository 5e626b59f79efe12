"""From the command line to jobs and their processes. Imports no torch until it builds or trains; uses all packages."""
