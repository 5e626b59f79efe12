"""What takes part in Lightning's loop: the step, checkpoints, checks of numbers, speed, pruning."""
