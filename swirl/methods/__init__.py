"""Methods: one file each, reading like the algorithm box of its paper."""
