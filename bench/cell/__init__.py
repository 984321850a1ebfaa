"""One cell, in whatever process it was placed: inputs, training, decoding, scores, checkpoint, record."""
