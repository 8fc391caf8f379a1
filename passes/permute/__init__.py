"""Permuting channels: N:M keeps more where the weights that matter are spread evenly over blocks."""
