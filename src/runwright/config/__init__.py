"""What is typed and what conf/ holds: overrides, keys, defaults, errors in words. Imports no torch."""
