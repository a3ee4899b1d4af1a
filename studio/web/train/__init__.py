"""The Train tab: tab.py, then a file a part."""
