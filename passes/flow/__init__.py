"""FLOW: which N and which M every linear gets, by what its pruning does to the model's outputs."""
