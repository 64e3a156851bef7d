"""`swirl compare`: methods on the same data and warm-up, tuned alike, read at equal cost, paired over seeds."""
