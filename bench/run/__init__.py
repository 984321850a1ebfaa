"""Many cells: prepared, placed on Ray or in this process, watched and shown."""
