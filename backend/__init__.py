"""Mapping to program: memory allocation, scheduling, instruction emission."""
