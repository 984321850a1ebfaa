"""`bench reproduce`: what of the papers can be made again, what was asked for, and the pages that show it."""
