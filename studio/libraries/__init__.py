"""transformers and diffusers, with all that their pieces share.

Both import themselves piece by piece, when a name is first asked of them. Two threads that do so at once wait for each
other's pieces, Python lets one of them see a piece half made, and it fails with "cannot import name". Whoever imports
a library from here gets it whole, or waits until another thread has: then only leaves are left to be asked for.
"""
