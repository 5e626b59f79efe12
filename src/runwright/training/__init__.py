"""A run: `train.py` is all of it, top to bottom; the rest of the package is what it calls, in its order."""
