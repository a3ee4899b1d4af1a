"""What version 0.1 made and how it was called, kept to be opened and called for ever. See make.py."""
