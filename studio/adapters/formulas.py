"""What each kind of adapter adds to a layer's weight W (out × in, or out × in × kh × kw) at strength 1.

One formula a function, named after the papers' kinds. σ = alpha / rank. Tensors are float32 and shaped as files hold
them. The layer's whole update is then s · delta, so that strength 0 is W itself, whatever the kind.
"""

import torch
from torch import Tensor

Parts = dict[str, Tensor]


def lora(W: Tensor, p: Parts, sigma: float) -> Tensor:
    """σ · B A (arXiv:2106.09685). A (r, in, …), B (out, r, …); perhaps a Tucker core `mid` (r, r, kh, kw) between."""
    if "mid" in p:
        return sigma * _tucker(p["mid"], p["B"].flatten(1), p["A"].flatten(1))
    return sigma * (p["B"].flatten(1) @ p["A"].flatten(1)).reshape(W.shape)


def loha(W: Tensor, p: Parts, sigma: float) -> Tensor:
    """σ · (w1_a w1_b) ⊙ (w2_a w2_b) (FedPara, arXiv:2108.06098), each product perhaps with a Tucker core t."""
    halves = []
    for n in "12":
        a, b, core = p[f"hada_w{n}_a"], p[f"hada_w{n}_b"], p.get(f"hada_t{n}")
        halves.append((a @ b).reshape(W.shape) if core is None else _tucker(core, a.T, b))
    return sigma * halves[0] * halves[1]


def lokr(W: Tensor, p: Parts, sigma: float) -> Tensor:
    """σ · w1 ⊗ w2 (LyCORIS, arXiv:2309.14859); each factor may itself be a product. σ is 1 when neither is."""
    w1 = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
    if "lokr_w2" in p:
        w2 = p["lokr_w2"]
    elif "lokr_t2" in p:
        w2 = _tucker(p["lokr_t2"], p["lokr_w2_a"].T, p["lokr_w2_b"])
    else:
        a, b = p["lokr_w2_a"], p["lokr_w2_b"]
        w2 = (a @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:])
    w1 = w1.reshape(*w1.shape, *(1 for _ in w2.shape[2:]))
    return sigma * torch.kron(w1, w2.contiguous()).reshape(W.shape)


def full(W: Tensor, p: Parts, sigma: float) -> Tensor:
    """The difference itself."""
    return p["diff"].reshape(W.shape) if "diff" in p else torch.zeros_like(W)


def norm(W: Tensor, p: Parts, sigma: float) -> Tensor:
    """The difference of a normalisation layer's weight."""
    return p["w_norm"].reshape(W.shape)


def ia3(W: Tensor, p: Parts, sigma: float) -> Tensor:
    """W · w, along the input's axis or the output's (arXiv:2205.05638, as LyCORIS writes it: w starts at 0)."""
    along = (1, -1) if p["on_input"].item() else (-1, 1)
    return W * p["ia3"].reshape(*along, *(1 for _ in W.shape[2:]))


def glora(W: Tensor, p: Parts, sigma: float) -> Tensor:
    """σ · (W a1 a2 + b1 b2) (arXiv:2306.07967). Older files hold the four the other way round: see `glora_is_old`."""
    a, b, up, down = ("a2", "a1", "b2", "b1") if glora_is_old(p) else ("a1", "a2", "b1", "b2")
    within = torch.einsum("oi...,ij->oj...", W, p[a].flatten(1) @ p[b].flatten(1))
    return sigma * (within + (p[up].flatten(1) @ p[down].flatten(1)).reshape(W.shape))


def glora_is_old(p: Parts) -> bool:
    """By shape: new files have b1 (out, r) and b2 (r, in), old ones b1 (r, in) and b2 (out, r). New when both fit."""
    rank_first = p["a1"].shape[0] == p["a2"].shape[1] == p["b1"].shape[0] == p["b2"].shape[1]
    rank_last = p["a1"].shape[1] == p["a2"].shape[0] == p["b1"].shape[1] == p["b2"].shape[0]
    return rank_first and not rank_last


def oft(W: Tensor, p: Parts, constraint: float) -> Tensor:
    """(R − I) W with R block-diagonal and orthogonal (arXiv:2306.07280). oft_blocks (n, b, b), n · b = out."""
    R = cayley(p["oft_blocks"], constraint)
    turned = torch.einsum("knm,kn...->km...", R, W.reshape(*R.shape[:2], *W.shape[1:])).flatten(0, 1)
    return _rescaled(turned, p, W) - W


def boft(W: Tensor, p: Parts, constraint: float) -> Tensor:
    """A product of sparse turns, each mixing further apart, less W (arXiv:2311.06243). oft_blocks (m, n, b, b)."""
    turned = W
    for i, R in enumerate(cayley(p["oft_blocks"], constraint)):
        apart, inputs = 2**i * R.shape[-1] // 2, W.shape[1:]
        mixed = turned.reshape(-1, 2, apart, *inputs).transpose(1, 2).reshape(*R.shape[:2], *inputs)
        mixed = torch.einsum("bij,bj...->bi...", R, mixed)
        turned = mixed.reshape(-1, apart, 2, *inputs).transpose(1, 2).flatten(0, 2)
    return _rescaled(turned, p, W) - W


def cayley(blocks: Tensor, constraint: float) -> Tensor:
    """(I + Q)(I − Q)⁻¹ of the skew part Q of each block, Q no longer than `constraint` where that is above 0."""
    Q = blocks - blocks.transpose(-1, -2)
    length = Q.norm() + 1e-8
    if 0 < constraint < length:
        Q = Q * (constraint / length)
    identity = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
    turn: Tensor = (identity + Q) @ torch.linalg.inv(identity - Q)
    return turn


def oftv2(W: Tensor, p: Parts, sigma: float) -> Tensor:
    """W (Rᵀ − I), R turning the inputs in blocks: PEFT's OFT (arXiv:2506.19847).

    oft_R (n, b (b − 1) / 2), n · b = inputs, or one block for all; neumann: see `rotation`.
    """
    R, flat = rotation(p["oft_R"], int(p["neumann"].item())), W.flatten(1)
    blocks = flat.reshape(len(flat), -1, R.shape[-1])
    if len(R) == 1:
        turned = torch.einsum("onb,cb->onc", blocks, R[0])
    else:
        turned = torch.einsum("onb,ncb->onc", blocks, R)
    return turned.reshape(W.shape) - W


def block_side(numbers: int) -> int:
    """b of the b (b − 1) / 2 numbers above the diagonal of a block; 0 where there is no such b."""
    side = round((1 + (1 + 8 * numbers) ** 0.5) / 2)
    return side if side * (side - 1) // 2 == numbers else 0


def rotation(upper: Tensor, terms: int) -> Tensor:
    """(n, b, b) turns of skew matrices Q, by what is above their diagonals.

    With terms I + 2 (Q + Q² + …) + Q^(terms − 1), the beginning of the series of (I + Q) (I − Q)⁻¹; with 0 terms exact,
    and the other way round: (I − Q) (I + Q)⁻¹. Both as PEFT has them.
    """
    side = block_side(upper.shape[1])
    rows, columns = torch.triu_indices(side, side, 1, device=upper.device)
    Q = upper.new_zeros(len(upper), side, side).index_put((torch.arange(len(upper))[:, None], rows, columns), upper)
    Q = Q - Q.transpose(-1, -2)
    identity = torch.eye(side, dtype=Q.dtype, device=Q.device)
    if not terms:
        turn: Tensor = (identity - Q) @ torch.linalg.inv(identity + Q)
        return turn
    if terms < 3:
        return identity + 2 * Q if terms == 2 else identity.expand_as(Q)
    series, power = identity + 2 * Q + 2 * Q @ Q, Q @ Q
    for _ in range(3, terms - 1):
        power = power @ Q
        series = series + 2 * power
    return series + power @ Q


def dora(W: Tensor, delta: Tensor, magnitude: Tensor, axis: str) -> Tensor:
    """m · V / ‖V‖ − W with V = W + delta (arXiv:2402.09353): delta gives the direction, m the length along `axis`.

    ‖V‖ gets no gradient, as in the paper's section 4.3. At strength s the layer uses W + s times this, so that 0 is W.
    """
    V = W + delta
    length = column_length(V.detach(), axis)
    return V * (magnitude.reshape(length.shape) / length) - W


def column_length(W: Tensor, axis: str) -> Tensor:
    """‖W‖ of each output's row (out, 1, …) or of each input's column (1, in, …)."""
    keep = 0 if axis == "output" else 1
    length: Tensor = torch.linalg.vector_norm(W, dim=[d for d in range(W.ndim) if d != keep], keepdim=True)
    return length


def _tucker(core: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """core (r, r, kh, kw), up (out, r), down (r, in) to (out, in, kh, kw)."""
    return torch.einsum("mn...,im,nj->ij...", core, up, down)


def _rescaled(turned: Tensor, p: Parts, W: Tensor) -> Tensor:
    return turned * p["rescale"].reshape(-1, *(1 for _ in W.shape[1:])) if "rescale" in p else turned


KINDS = {
    "lora": lora,
    "loha": loha,
    "lokr": lokr,
    "full": full,
    "norm": norm,
    "ia3": ia3,
    "glora": glora,
    "oft": oft,
    "boft": boft,
    "oftv2": oftv2,
}
