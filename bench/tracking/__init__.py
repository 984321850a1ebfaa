"""MLflow as a view of runs and records."""
