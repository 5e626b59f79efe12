"""A run: `train.py` is all of it, from top to bottom; the other modules are what it calls."""
