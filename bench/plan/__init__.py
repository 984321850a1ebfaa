"""From a request to its cells: their configurations, their keys, and what would happen to each."""
