"""Results on disk: the record of a cell, its predictions, and MLflow as a view of both.

Records are the source of truth: pages and the tracking database can be thrown away and made again from them.
"""
