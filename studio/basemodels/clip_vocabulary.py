"""CLIP's tokenizer without a download: the byte pairs that OpenAI published (see assets/NOTICE), as Stable Diffusion,
SDXL, SD 3 and FLUX use them. 49,408 tokens: 256 bytes, the same ending a word, 48,894 pairs, and the two frames.
"""

import gzip
import re
from functools import cache
from pathlib import Path
from typing import Any

from PIL import ImageColor

FILE = Path(__file__).parent / "configs" / "bpe_simple_vocab_16e6.txt.gz"
PAIRS = 49152 - 256 - 2  # what CLIP takes of the file, behind its first line
RARE = 0.8  # of the vocabulary: ids follow frequency in byte pairs
RAREST = 0.95  # of the vocabulary: "sks" is one of these, "magenta" is not
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(pad: str = END) -> Any:
    """A CLIPTokenizer of transformers for 77 tokens. pad: fills the rest; "!" for OpenCLIP's encoders."""
    from studio.libraries import CLIPTokenizer

    vocabulary, pairs = _vocabulary()
    return CLIPTokenizer(vocab=dict(vocabulary), merges=list(pairs), pad_token=pad, model_max_length=77)


def is_made_up(text: str) -> bool:
    """Whether a word in it is none of CLIP's whole words, or one of its rarest: "zsk", "sks", "ohwx", not "cat"."""
    known = _vocabulary()[0]
    words = set(re.findall(r"[^\W\d_]{2,}", text.lower())) - ImageColor.colormap.keys()  # "cyan" is two tokens
    return any(known.get(f"{word}</w>", PAIRS) >= RAREST * len(known) for word in words)


@cache
def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    lines = gzip.decompress(FILE.read_bytes()).decode("utf-8").split("\n")[1 : 1 + PAIRS]
    pairs = [(first, second) for first, second in (line.split() for line in lines)]
    letters = _letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in pairs), START, END]
    return {token: number for number, token in enumerate(tokens)}, pairs


def _letters() -> list[str]:
    """A printable letter for each byte, as GPT-2's `bytes_to_unicode` deals them: those that print, then the rest."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printing]
    return [*map(chr, printing), *(chr(256 + place) for place in range(len(rest)))]
