"""Results on disk: the record of a cell, its predictions, scores by clip, curves, and data of figures.

Records are the source of truth: pages and the tracking database can be thrown away and made again from them.
"""
