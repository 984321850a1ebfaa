"""What every method must keep to, in this project or outside it: checks that run a method on a tiny corpus."""

from bench.conformance.checks import CHECKS, Finding, examine
from bench.conformance.workplace import Bench

__all__ = ["CHECKS", "Bench", "Finding", "examine"]
