"""Where a run tells what it does: the terminal, TensorBoard, MLflow, Weights & Biases. Uses config, sweeps.names."""
