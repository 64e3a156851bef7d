"""Worlds: sources of transitions, one file each."""
