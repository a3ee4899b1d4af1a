"""The page: Gradio and nothing else. A folder a tab, what they share in `components`; actions are calls of `services`.

Nothing here imports torch, diffusers or transformers while the page is built: engines are imported in the handlers.
"""
