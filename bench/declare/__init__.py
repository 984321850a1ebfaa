"""What methods, data sets and commands declare: cards, definitions, shared settings, and the grammar they are written in."""
