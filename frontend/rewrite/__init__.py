"""Operators that the machine lacks, written in those that it has: rules by operator, applied while a model is read."""
