"""Learn world models from state-only data: a forward and an inverse model that teach each other."""
