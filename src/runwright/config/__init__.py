"""The command line and conf/: overrides, keys, defaults, error messages. Imports no torch."""
