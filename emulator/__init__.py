"""Executing programs: values, time and energy, kept apart."""
