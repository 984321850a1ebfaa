"""What every method must keep to, in this project or outside it: checks that run a method on a tiny corpus."""

from bench.conformance.checks import CHECKS, Bench

__all__ = ["CHECKS", "Bench"]
