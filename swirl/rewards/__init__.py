"""Rewards: pure functions with the signature of TRL."""
