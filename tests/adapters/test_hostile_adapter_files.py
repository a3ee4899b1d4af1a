"""Whatever a file holds, the answer is an adapter or one AdapterError sentence: no crash, no large allocation."""

import hashlib
import io
import json
import random
import resource
import zipfile

import pytest
import safetensors.torch
import torch

from studio.adapters import attach_file, describe, describe_text, files, read_adapter
from studio.errors import AdapterError
from tests import tiers


def good(**extra):
    tensors = {"unet.to_q.lora_A.weight": torch.randn(2, 4), "unet.to_q.lora_B.weight": torch.randn(4, 2), **extra}
    return safetensors.torch.save(tensors, {"studio.trigger": "zok"})


def raw(header, body=b""):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + body


def pair(a=(2, 4), b=(4, 2), dtype="F32", size=4):
    """A header of one layer, with the shapes told, and a body of the length that they need."""
    na, nb = (size * torch.Size(s).numel() for s in (a, b))
    return {
        "unet.q.lora_A.weight": {"dtype": dtype, "shape": list(a), "data_offsets": [0, na]},
        "unet.q.lora_B.weight": {"dtype": dtype, "shape": list(b), "data_offsets": [na, na + nb]},
    }, b"\0" * (na + nb)


def zipped():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    return out.getvalue()


def changed(key, value):
    header, body = pair()
    header["unet.q.lora_A.weight"][key] = value
    return raw(header, body)


HEADER, BODY = pair()
ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HOSTILE = {
    "empty": b"",
    "one byte": b"\x01",
    "nine bytes": b"\x01\0\0\0\0\0\0\0{",
    "text": b"<html>Not found, please log in to download this file</html>",
    "pickle": b"\x80\x02}q\x00.________",
    "zip": zipped(),
    "half a file": good()[:-9],
    "half a header": good()[:40],
    "trailing bytes": good() + b"x",
    "header of 16 EB": b"\xff" * 8 + b"{}",
    "header of 9 MB": raw(b"{" + b" " * (9 << 20) + b"}"),
    "header not JSON": raw(b"{nonsense"),
    "header a list": raw(b"[]"),
    "header not UTF-8": raw(b'{"\xff\xfe": 1}'),
    "lone surrogate in a name": raw(b'{"\\ud800": 1}'),
    "lone surrogate in metadata": raw(b'{"__metadata__": {"a": "\\ud800"}}'),
    "deep nesting": raw(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "deep list": raw(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "number of 100,000 digits": raw(b'{"a": ' + b"9" * 100_000 + b"}"),
    "same name twice": raw(b'{"a": {}, "a": {}}'),
    "metadata a list": raw({"__metadata__": [1]}),
    "metadata of numbers": raw({"__metadata__": {"a": 1}}),
    "tensor a number": raw({"a": 1}),
    "tensor of no fields": raw({"a": {}}),
    "too many tensors": raw({f"t{i}": ONE for i in range(20_001)}),
    "long name": raw({"x" * 2_000: ONE}, b"\0" * 4),
    "no tensors": raw({}),
    "not a LoRA": safetensors.torch.save({"model.weight": torch.ones(3)}),
    "unknown number format": changed("dtype", "F6"),
    "number format a list": changed("dtype", ["F32"]),
    "boolean": changed("dtype", "BOOL"),
    "negative size": changed("shape", [-2, -4]),
    "fractional size": changed("shape", [2.0, 4]),
    "true as size": changed("shape", [True, 8]),
    "shape of nothing": raw({"a": {"dtype": "F32", "shape": [0, 1 << 40], "data_offsets": [0, 0]}}),
    "shape too large": changed("shape", [1 << 40, 1 << 40]),
    "shape text": changed("shape", "2,4"),
    "many axes": changed("shape", [2, 4, 1, 1, 1, 1, 1, 1, 1]),
    "offsets overlap": changed("data_offsets", [32, 64]),
    "offsets backwards": changed("data_offsets", [32, 0]),
    "offsets past the end": changed("data_offsets", [1 << 60, (1 << 60) + 32]),
    "three offsets": changed("data_offsets", [0, 32, 64]),
    "ranks disagree": raw(*pair(b=(4, 3))),
    "alpha of two numbers": good(**{"unet.to_q.alpha": torch.ones(2)}),
    "alpha not finite": good(**{"unet.to_q.alpha": torch.tensor(float("inf"))}),
    "only A": good(**{"unet.k.lora_A.weight": torch.ones(2, 4)}),
    "two adapters in one": good(**{"unet.to_q.lora_A.other.weight": torch.ones(2, 4)}),
    "settings not JSON": raw({**HEADER, "__metadata__": {"lora_adapter_metadata": "{"}}, BODY),
    "settings nested": raw({**HEADER, "__metadata__": {"lora_adapter_metadata": "[" * 100_000}}, BODY),
    "alpha a text": raw({**HEADER, "__metadata__": {"lora_adapter_metadata": '{"unet.lora_alpha": "x"}'}}, BODY),
    "alpha NaN": raw({**HEADER, "__metadata__": {"lora_adapter_metadata": '{"unet.lora_alpha": NaN}'}}, BODY),
    "patterns a list": raw({**HEADER, "__metadata__": {"lora_adapter_metadata": '{"unet.alpha_pattern": [1]}'}}, BODY),
}


def refused(path):
    with pytest.raises(AdapterError) as caught:
        read_adapter(path)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 400 and sentence.endswith("."), sentence


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence(tmp_path, case):
    path = tmp_path / "a.safetensors"
    path.write_bytes(HOSTILE[case])
    refused(path)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".pth"])
def test_pickle_names_are_refused_whatever_is_inside(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(good())
    refused(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "none.safetensors")
    refused(tmp_path)


def test_a_sparse_giant_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as stream:
        stream.write(good()[:64])
        stream.truncate(200 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path):
    header = json.dumps(HEADER).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw(header.ljust(0x0280), BODY))  # 80 02: also how pickle protocol 2 begins
    assert read_adapter(path).rank == 2


def test_the_hash_is_of_the_bytes_on_the_disk(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(good(extra=torch.ones(700_000)))
    file = read_adapter(path)
    assert file.hash == hashlib.sha256(path.read_bytes()).hexdigest() and file.size == path.stat().st_size
    assert file.unknown == {"extra": "not an adapter's key"}


@pytest.mark.parametrize(
    "value",
    [torch.full((2, 4), float("nan")), torch.full((2, 4), 1e300, dtype=torch.float64)],
    ids=["nan", "too large"],
)
def test_numbers_that_are_not_finite_are_reported_and_refused_for_use_unless_forced(tmp_path, value):
    path = tmp_path / "a.safetensors"
    path.write_bytes(good(**{"unet.to_q.lora_A.weight": value}))
    file, model = read_adapter(path), torch.nn.ModuleDict({"to_q": torch.nn.Linear(4, 4)})
    assert describe(file)["not_finite"] == ["unet.to_q.lora_A.weight"] == file.not_finite
    assert "not finite" in describe_text(describe(file))
    with pytest.raises(AdapterError, match="a holds numbers that are not finite .unet.to_q.lora_A.weight."):
        attach_file(file, {"unet": model})
    assert attach_file(file, {"unet": model}, force=True).report.matched == 1


def test_words_packed_into_the_file_are_read_beside_the_layers(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(
        good(**{"bundle_emb.zok.clip_l": torch.ones(2, 768), "bundle_emb.zok.clip_g": torch.ones(2, 1280)})
    )
    file = read_adapter(path)
    assert file.embeddings["zok"]["clip_l"].shape == (2, 768) and not file.unknown and len(file.layers) == 1
    assert describe(file)["embeddings"] == {"zok": ["clip_g", "clip_l"]}


SEEDS = {
    "lora": {"unet.to_q.lora_A.weight": (2, 4), "unet.to_q.lora_B.weight": (4, 2), "unet.to_q.alpha": ()},
    "dora": {"unet.q.lora_A.weight": (2, 4), "unet.q.lora_B.weight": (4, 2), "unet.q.lora_magnitude_vector": (4,)},
    "loha": {f"lora_unet_q.hada_w{n}_{s}": (4, 2) if s == "a" else (2, 4) for n in "12" for s in "ab"},
    "lokr": {"lora_unet_q.lokr_w1": (2, 2), "lora_unet_q.lokr_w2_a": (2, 1), "lora_unet_q.lokr_w2_b": (1, 2)},
    "tucker": {
        "lora_unet_q.lora_down.weight": (2, 4, 1, 1),
        "lora_unet_q.lora_mid.weight": (2, 2, 3, 3),
        "lora_unet_q.lora_up.weight": (4, 2, 1, 1),
    },
    "oft": {"lora_unet_q.oft_blocks": (2, 2, 2), "lora_unet_q.alpha": ()},
    "boft": {"lora_unet_q.oft_blocks": (2, 2, 2, 2), "lora_unet_q.rescale": (4, 1)},
    "glora": {f"lora_unet_q.{n}.weight": (4, 2) if n[1] == "1" else (2, 4) for n in ("a1", "a2", "b1", "b2")},
    "ia3": {"lora_unet_q.weight": (4,), "lora_unet_q.on_input": ()},
    "full": {"lora_unet_q.diff": (4, 4), "lora_unet_q.diff_b": (4,)},
}
TEXTS = [b'"', b"{", b"[", b"9", b"-", b"\0", b"\\u0000", b"1e9", b"0,", b'"F16"', b"[[[[", b"4294967296"]


def damaged(start: bytes, draw: random.Random) -> bytes:
    """Bits flipped, bytes cut out, put in or doubled, mostly in the header, sometimes a lie about its length."""
    data = bytearray(start)
    header_end = 8 + int.from_bytes(start[:8], "little")
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(header_end if draw.random() < 0.8 else len(start)) % len(data)
        match draw.randrange(6):
            case 0:
                data[place] ^= 1 << draw.randrange(8)
            case 1:
                del data[place : place + draw.randint(1, 40)]
            case 2:
                data[place:place] = draw.randbytes(draw.randint(1, 20))
            case 3:
                data[place : place + 1] = draw.choice(TEXTS)
            case 4:
                data[place:place] = data[place : place + draw.randint(2, 90)]
            case 5:
                del data[draw.randrange(len(data)) :]
        if len(data) < 2:
            return bytes(data)
    return bytes(data)


def survive(path, count, seed):
    """Read and place `count` damaged files; returns (refusals, the memory grown in kB)."""
    draw, model = random.Random(seed), torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4), "to_q": torch.nn.Linear(4, 4)})
    starts = []
    for shapes in SEEDS.values():
        tensors = {key: torch.rand(shape) for key, shape in shapes.items()}
        starts.append(safetensors.torch.save(tensors, {"lora_adapter_metadata": '{"unet.lora_alpha": 4}'}))
    refusals, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        path.write_bytes(damaged(starts[number % len(starts)], draw))
        try:
            attach_file(read_adapter(path), {"unet": model}).detach()
        except AdapterError as error:
            refusals += 1
            assert "\n" not in str(error) and len(str(error)) < 500
    return refusals, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


@pytest.mark.parametrize("count", tiers.default([500, 10_000]))
def test_damaged_files_give_an_adapter_or_an_adapter_error(tmp_path, count):
    refusals, grown = survive(tmp_path / "a.safetensors", count, 0)
    assert 0.6 * count < refusals < count and grown < 200_000


def test_a_small_file_of_a_huge_product_is_refused_before_it_is_multiplied(tmp_path):
    """0.8 MB of rank 1 mean 160 GB as a product; likewise a Kronecker product and a fused layer."""
    huge = 200_000
    huge_ones = [
        {"unet.q.lora_A.weight": torch.ones(1, huge), "unet.q.lora_B.weight": torch.ones(huge, 1)},
        {"lora_unet_q.lokr_w1": torch.ones(500, 500), "lora_unet_q.lokr_w2": torch.ones(500, 500)},
        {f"lora_unet_q.hada_w{n}_{s}": torch.ones((huge, 1) if s == "a" else (1, huge)) for n in "12" for s in "ab"},
        {"lora_unet_q.oft_blocks": torch.ones(huge, 1, 1)},
    ]
    model = torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for tensors in huge_ones:
        safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
        with pytest.raises(AdapterError, match="another base model"):
            attach_file(read_adapter(tmp_path / "a.safetensors"), {"unet": model})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_too_many_tiny_tensors_are_refused_by_the_header(tmp_path, monkeypatch):
    entries = {f"t{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(25_000)}
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw(entries, b"\0" * 100_000))
    monkeypatch.setattr(files, "_read_tensors", lambda *_: pytest.fail("its tensors were read"))
    refused(path)
