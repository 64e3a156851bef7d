"""Methods: one file each, reading like the algorithm box of its paper."""

METHODS = {
    "pretrain": "swirl.methods.pretrain",
    "warmup": "swirl.methods.warmup",
    "swirl": "swirl.methods.swirl",
    "verified": "swirl.methods.verified",
}
"""Name in a recipe's `methods` -> module, whose function of the same name takes a runner and a pair to a pair."""
