"""The Dataset tab: tab.py, then a file a part."""
