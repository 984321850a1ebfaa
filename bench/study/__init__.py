"""Does an idea help? Comparisons that are declared beforehand, run cell by cell, stopped by a rule, and said on one page."""
