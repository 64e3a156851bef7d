"""What is done with a learned world: act in it, plan in it, train agents in it."""
