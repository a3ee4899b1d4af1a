"""The page: Gradio only. actions*.py is what a person can do; the tabs and the named endpoints (api*.py) call it.

A tab is built by its *_tab.py out of parts, a file each; widgets.py and boards.py have what they share.

Nothing here imports torch, diffusers or transformers while the page is built: services are imported in the handlers.
"""
