"""MLflow, and Weights & Biases, as views of runs and records."""
