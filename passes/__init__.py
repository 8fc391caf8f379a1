"""Graph to graph: calibration, pruning, quantisation; then tiling and mapping."""
