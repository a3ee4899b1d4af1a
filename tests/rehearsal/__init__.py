"""The Space before it is pushed: what the Hub checks, and what a visitor meets."""
