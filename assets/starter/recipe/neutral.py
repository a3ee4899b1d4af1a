"""Teach the text encoder that unknown words mean nothing and that there are several ways to say the same.

The trained encoder is its own teacher: for a caption in any wording, the U-Net is to see what the first encoder gave it
for the canonical caption. "See" is meant literally: the outputs of the U-Net's own cross-attention layers are compared,
with queries that the U-Net really asked. So the words may stand anywhere, and nothing is said about the part of an
unknown word's state that no layer reads, which is where an adapter finds it.

Then `through_unet` compares what the whole U-Net predicts. It costs four times as much a step, and brings the rest.
"""

import copy
import random
from pathlib import Path

import art
import captions
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, UNet2DConditionModel
from resuming import Loop
from transformers import CLIPTextModel, CLIPTokenizer

QUERIES, LAYERS = 32, 3  # compared in each step
DRESSED = 0.85  # share of captions with words that mean nothing
SHORT = 28  # tokens; most steps leave out the padding behind them, which costs more than the words


def cross_attentions(unet: UNet2DConditionModel) -> list[torch.nn.Module]:
    return [module for name, module in unet.named_modules() if name.endswith("attn2")]


@torch.no_grad()
def collect_queries(
    unet: UNet2DConditionModel, latents: torch.Tensor, states: torch.Tensor, alphas: torch.Tensor, draw: torch.Generator
) -> list[torch.Tensor]:  # fmt: skip
    """What each cross-attention layer asks, over all noise levels: (N, heads, head width) a layer."""
    layers, found = cross_attentions(unet), dict[int, list[torch.Tensor]]()
    hooks = [
        layer.to_q.register_forward_hook(lambda _m, _i, out, n=n: found.setdefault(n, []).append(out.detach()))
        for n, layer in enumerate(layers)
    ]
    for start in range(0, len(latents), 16):
        x, e = latents[start : start + 16], states[start : start + 16]
        t = torch.randint(1000, (len(x),), generator=draw)
        a = alphas[t][:, None, None, None]
        unet(a.sqrt() * x + (1 - a).sqrt() * torch.randn(x.shape, generator=draw), t, e)
    for hook in hooks:
        hook.remove()
    return [
        torch.cat([q.flatten(0, 1) for q in found[n]]).unflatten(-1, (layer.heads, -1)).half()
        for n, layer in enumerate(layers)
    ]


def seen_by(layers: list[torch.nn.Module], queries: list[torch.Tensor], states: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of the layers for text states (B, tokens, width): (B, queries, channels) each."""
    out = []
    for layer, query in zip(layers, queries):
        key, value = (to(states).unflatten(-1, (layer.heads, -1)).transpose(1, 2) for to in (layer.to_k, layer.to_v))
        q = query.transpose(0, 1)[None].expand(len(states), -1, -1, -1)
        attended = F.scaled_dot_product_attention(q, key, value, scale=layer.scale)
        out.append(layer.to_out[0](attended.transpose(1, 2).flatten(2)))
    return out


def encode(text: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str], length: int = 77):
    tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return text(input_ids=tokens.input_ids.to(text.device))


def train(
    text: CLIPTextModel, unet: UNet2DConditionModel, vae: AutoencoderTiny, tokenizer: CLIPTokenizer,
    known: list[art.Concept], images: dict[str, torch.Tensor], others: list[str], work: Path, minutes: float,
    batch: int = 24, peak: float = 3e-4, device: str = "cpu",
) -> CLIPTextModel:  # fmt: skip
    """Returns the text encoder, trained for `minutes` in all; goes on from work/neutral.pt."""
    import unet as denoiser

    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    synonyms, words = captions.vocabulary(known, others)
    styles, colours = list(art.BASE_STYLES), list(art.COLOURS)
    teacher = copy.deepcopy(text).eval().requires_grad_(False).to(device)
    student = text.train().to(device)
    queries = _queries(unet, vae, teacher, tokenizer, known, images, denoiser.scheduler().alphas_cumprod, draw, work)
    layers = [layer.to(device).requires_grad_(False) for layer in cross_attentions(unet)]
    optimizer = torch.optim.AdamW(student.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    loop = Loop("neutral", work / "neutral.pt", minutes, model=student, optimizer=optimizer)
    for draw in loop:
        words_draw = random.Random(loop.step)
        meanings = [
            captions.Meaning(
                words_draw.choice(known),
                words_draw.choice(styles) if words_draw.random() < 0.6 else None,
                words_draw.choice(colours) if words_draw.random() < 0.75 else None,
            )
            for _ in range(batch)
        ]
        said = [captions.draw_caption(m, words_draw, synonyms, words, DRESSED) for m in meanings]
        if loop.step % 8 == 0:
            meanings, said = meanings[:-1], [*said[:-1]]  # the empty caption stays what guidance pushes away from
        length = SHORT if words_draw.random() < 0.85 else 77
        some = words_draw.sample(range(len(layers)), LAYERS)
        chosen = [layers[n] for n in some]
        asked = [
            queries[n][torch.randint(len(queries[n]), (QUERIES,), generator=draw)].float().to(device) for n in some
        ]
        canonical = [m.canonical for m in meanings] + ([""] if len(meanings) < batch else [])
        said += [""] if len(said) < batch else []
        with torch.no_grad():
            taught = encode(teacher, tokenizer, canonical, length)
            target = seen_by(chosen, asked, taught.last_hidden_state)
        given = encode(student, tokenizer, said, length)
        errors = [  # as a share of what captions change
            F.mse_loss(one, other) / other.var(0).mean()
            for one, other in zip(seen_by(chosen, asked, given.last_hidden_state), target)
        ]
        seen = sum(errors) / len(errors)
        pooled = 1 - F.cosine_similarity(given.pooler_output, taught.pooler_output).mean()
        loss = seen + 0.5 * pooled
        for group in optimizer.param_groups:
            group["lr"] = loop.rate(peak)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loop.note(seen=seen.item(), pooled=pooled.item())
    return student.eval()


def through_unet(
    text: CLIPTextModel, teacher: CLIPTextModel, unet: UNet2DConditionModel, tokenizer: CLIPTokenizer,
    data: dict[str, torch.Tensor], known: list[art.Concept], others: list[str], work: Path, minutes: float,
    batch: int = 12, peak: float = 1.5e-4, device: str = "cpu",
) -> CLIPTextModel:  # fmt: skip
    """Returns the text encoder, trained on for `minutes`; goes on from work/neutral-unet.pt.

    The loss: how far the U-Net's prediction for a dressed caption is from that for the canonical caption of `teacher`,
    as a share of what the caption changes. data: `unet.cache`'s latents.
    """
    import unet as denoiser

    synonyms, words = captions.vocabulary(known, others)
    alphas, latents = denoiser.scheduler().alphas_cumprod.to(device), data["latents"].to(device)
    student, teacher = text.train().to(device), teacher.eval().requires_grad_(False).to(device)
    unet = unet.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(student.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    loop = Loop("neutral-unet", work / "neutral-unet.pt", minutes, model=student, optimizer=optimizer)
    for draw in loop:
        pick = torch.randint(len(latents), (batch,), generator=draw)
        meanings = _meanings(data, pick, known, random.Random(loop.step))
        words_draw = random.Random(loop.step)
        said = [captions.draw_caption(m, words_draw, synonyms, words, DRESSED) for m in meanings[1:]]
        x = latents[pick.to(device)].float()
        noise = torch.randn(x.shape, generator=draw).to(device)
        t = (torch.rand(batch, generator=draw) ** 0.7 * 1000).long().to(device)  # mostly noise
        a, s = alphas[t].sqrt()[:, None, None, None], (1 - alphas[t]).sqrt()[:, None, None, None]
        noisy = (a * x + s * noise).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            taught = encode(teacher, tokenizer, ["", *(m.canonical for m in meanings[1:])])
            wanted = unet(noisy, t, taught.last_hidden_state).sample
            empty = unet(noisy, t, taught.last_hidden_state[:1].expand(batch, -1, -1)).sample
        given = encode(student, tokenizer, ["", *said])
        moved = F.mse_loss(unet(noisy, t, given.last_hidden_state).sample, wanted) / F.mse_loss(wanted, empty)
        pooled = 1 - F.cosine_similarity(given.pooler_output, taught.pooler_output).mean()
        rate = loop.rate(peak, warm_up=30, hold=0.4)
        loop.learn(moved + 0.5 * pooled, optimizer, rate, list(student.parameters()))
        loop.note(moved=moved.item(), pooled=pooled.item())
    return student.eval()


def _meanings(data, pick, known, draw: random.Random) -> list[captions.Meaning]:
    """What the latents show, said in part."""
    styles, colours = list(art.BASE_STYLES), list(art.COLOURS)
    return [
        captions.Meaning(
            known[concept],
            styles[style] if draw.random() < 0.5 else None,
            colours[colour] if draw.random() < 0.75 else None,
        )
        for concept, style, colour in zip(*(data[key][pick].tolist() for key in ("concept", "style", "colour")))
    ]


def _queries(unet, vae, teacher, tokenizer, known, images, alphas, draw, work) -> list[torch.Tensor]:
    """From noisy latents of the base's own art, kept in work/queries.pt."""
    file = work / "queries.pt"
    if not file.exists():
        rows, palette, names = [], art.colours_tensor(), list(art.COLOURS)
        latents = []
        for style, glyphs in images.items():
            pick = torch.randperm(len(known), generator=draw)[:32]
            colour = torch.randint(len(palette), (32,), generator=draw)
            with torch.no_grad():
                latents.append(vae.encode(art.compose(glyphs[pick], palette[colour])).latents)
            rows += [art.caption(known[i].name, style, names[c]) for i, c in zip(pick.tolist(), colour.tolist())]
        with torch.no_grad():
            states = encode(teacher, tokenizer, rows).last_hidden_state
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(collect_queries(unet, torch.cat(latents), states, alphas, draw), file)
    return torch.load(file, weights_only=True)
