"""Files that are whole or not there at all, locks that end with their holder, digests of content."""
