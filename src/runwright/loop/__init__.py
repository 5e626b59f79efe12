"""Parts of Lightning's training loop: the step, checkpoints, checks for NaN, speed, pruning."""
