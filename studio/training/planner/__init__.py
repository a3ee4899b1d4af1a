"""A plan for a run: what fits, which rate, how long, each setting with its reason, from probes of a few steps."""
