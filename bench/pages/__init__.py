"""The ground of all that people read: documents with a Markdown and an HTML face, and tables for a terminal."""
