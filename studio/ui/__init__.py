"""The page: Gradio only. One file a tab, one for what a person can do, one for shared widgets, one for the look.

Nothing here imports torch, diffusers or transformers while the page is built: services are imported in the handlers.
"""
