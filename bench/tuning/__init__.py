"""`bench tune`: search the settings of a card on validation clips, then train the chosen ones anew over the seeds."""
