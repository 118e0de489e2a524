"""A run in TensorBoard, Weights & Biases, Trackio and MLflow, beside its own files."""
