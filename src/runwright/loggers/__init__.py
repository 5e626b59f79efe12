"""Output of a run: the terminal, TensorBoard, MLflow, Weights & Biases. Uses config, sweeps.names."""
