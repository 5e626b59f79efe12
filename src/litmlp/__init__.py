"""Multilayer perceptrons, trained as in *the notes*: five study notes on training networks.

docs/techniques.md restates what the notes teach, and conf/experiment/ repeats their experiments.
"""
