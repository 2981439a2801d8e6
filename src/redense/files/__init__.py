"""The doors to the world's files: one reader per kind, which says file, place, value and remedy."""
