"""`swirl compare`: methods on the same data, warm-up and grid of learning rates, at equal cost, paired over seeds."""
