"""The Generate tab: tab.py, then a file a part."""
