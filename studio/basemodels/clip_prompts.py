"""Weighted prompts of any length for CLIP text encoders, as A1111 does it.

A prompt is cut into chunks of as many tokens as the encoder reads (75 and the two that frame them). Each chunk is
encoded alone and the states are put one behind the other; a denoiser with cross-attention takes any number of them. A
part's weight multiplies the states of its tokens, after which the mean is brought back to what it was (A1111's
`sd_hijack_clip`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Parts = Sequence[tuple[str, float]]  # (text, weight); ("BREAK", -1) begins a new chunk
BREAK = -1.0


def chunks_in(tokenizer: Any, parts: Parts, most: int = 0) -> int:
    """How many chunks the prompt takes, at least 1. most: as in `clip_states`."""
    return len(_chunks(tokenizer, parts, most))


def clip_states(
    tokenizer: Any,
    encoder: Any,
    prompts: Sequence[Parts],
    chunks: int = 1,
    layer: int = -1,
    norm: bool = True,
    most: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """(states (B, 77 chunks, width), the pooled output of each first chunk (B, width) where the encoder has one).

    Keeps gradients where they are enabled.

    chunks  all prompts are filled up with empty ones to this many
    layer   of the hidden states: -1 the last, -2 the one before, and so on
    norm    whether the encoder's final norm is applied to it, as SD 1 and 2 have it and SDXL has not
    most    tokens that are read of a prompt; 0: all
    """
    rows, weights = [], []
    for parts in prompts:
        found = _chunks(tokenizer, parts, most)
        found += [([], [])] * (chunks - len(found))
        for ids, factors in found:
            fill = tokenizer.model_max_length - len(ids) - 2
            pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
            rows.append([tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[pad] * fill])
            weights.append([1.0, *factors, *[1.0] * (fill + 1)])
    answer = encoder(torch.tensor(rows).to(encoder.device), output_hidden_states=True)
    if layer == -1 and norm:
        states = answer.last_hidden_state
    else:
        states = answer.hidden_states[layer]
        states = _final_norm(encoder)(states) if norm else states
    states = states.reshape(len(prompts), -1, states.shape[-1])
    factor = torch.tensor(weights).to(states).reshape(len(prompts), -1, 1)
    if (factor != 1).any():
        mean = states.mean((1, 2), keepdim=True)
        states = states * factor
        states = states * (mean / states.mean((1, 2), keepdim=True))
    pooled = getattr(answer, "text_embeds", None)
    if pooled is not None:
        pooled = pooled.reshape(len(prompts), -1, pooled.shape[-1])[:, 0]
    return states, pooled


def _chunks(tokenizer: Any, parts: Parts, most: int) -> list[tuple[list[int], list[float]]]:
    """(ids, weights) of each chunk, without the two tokens that frame it."""
    room = tokenizer.model_max_length - 2
    found: list[tuple[list[int], list[float]]] = [([], [])]
    count = 0
    for text, weight in parts:
        if text == "BREAK" and weight == BREAK:
            found.append(([], []))
            continue
        for one in tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids:
            count += 1
            if most and count > most:
                return found
            if len(found[-1][0]) == room:
                found.append(([], []))
            found[-1][0].append(one)
            found[-1][1].append(weight)
    return found


def _final_norm(encoder: Any) -> Any:
    return encoder.final_layer_norm if hasattr(encoder, "final_layer_norm") else encoder.text_model.final_layer_norm
