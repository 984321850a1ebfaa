"""What a cell leaves behind: its record, its key, its predictions, the scores of its clips, the data of its figures."""
