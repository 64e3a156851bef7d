"""Methods: one file each, reading like the algorithm box of its paper."""

METHODS = {
    "pretrain": "swirl.methods.pretrain",
    "warmup": "swirl.methods.warmup",
    "swirl": "swirl.methods.swirl",
    "verified": "swirl.methods.verified",
    "sft-continue": "swirl.methods.sft_continue",
    "sft-merge": "swirl.methods.sft_merge",
    "bootstrap": "swirl.methods.bootstrap",
    "rlvr": "swirl.methods.rlvr",
    "inverse-reward": "swirl.methods.inverse_reward",
}
"""Name in a recipe's `methods` -> module, whose function of the same name (`_` for `-`) takes a runner and a pair of
checkpoints to such a pair."""
