"""Which words of a run's captions carry what it learned.

phrases.py   captions as tags and words, and captions without one of them; no torch
effects.py   what was measured of each word, and what that means; no torch
measure.py   the losses with and without each word, with and without the adapter
"""
