"""`swirl compare`: methods on the same data, warm-up and learning rates, read at equal cost, paired over seeds."""
