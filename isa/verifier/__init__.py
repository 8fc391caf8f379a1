"""Proves, without running it, that a program is safe to run."""

from __future__ import annotations

from .problems import MOST_PROBLEMS, check, verify

__all__ = ["MOST_PROBLEMS", "check", "verify"]
