"""Methods: one file each, reading like the algorithm box of its paper."""

METHODS = {
    "pretrain": "pretrain",
    "warmup": "warmup",
    "swirl": "swirl",
    "verified": "verified",
    "sft-continue": "inferred",
    "sft-merge": "inferred",
    "bootstrap": "inferred",
    "rlvr": "swirl",
    "inverse-reward": "swirl",
    "rwml": "swirl",
    "early-experience": "experience",
    "oracle": "verified",
    "random-label": "verified",
    "shuffled-reward": "swirl",
}
"""Name in a recipe's `methods` -> the section of the recipe that it reads.

A method is the function of that name (`_` for `-`) in the module of that name: it takes a runner and a pair of
checkpoints to such a pair.
"""
ORACLE_ROUNDS = 12
"""Most rounds of `oracle`: after so many a role may not have stopped improving."""
