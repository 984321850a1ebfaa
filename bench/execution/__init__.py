"""One cell from fit to score, and the placement of many cells on Ray or in this process."""
