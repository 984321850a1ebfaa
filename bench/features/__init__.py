"""Feature streams: one cache for all methods, filled from files of others or from videos."""
