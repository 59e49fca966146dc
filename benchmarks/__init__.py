"""What is measured and how; ``python -m benchmarks`` runs all of it."""
