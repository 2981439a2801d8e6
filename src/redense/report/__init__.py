"""Records in, one page out."""
