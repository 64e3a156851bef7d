"""Agents: policies that carry a world model, plan with one, and train inside one."""
