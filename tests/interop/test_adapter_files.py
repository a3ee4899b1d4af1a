"""Files go both ways: between the studio and PEFT, and from the studio into a diffusers pipeline."""

import copy

import pytest
import safetensors.torch
import torch
from torch import nn

from studio.adapters import AdapterSpec, attach, attach_file, read_adapter, write_adapter

peft = pytest.importorskip("peft")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")


def error(got, expected):
    return ((got - expected).norm() / expected.norm()).item()


def disturb(module, only="lora_"):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if only in name:
                parameter.normal_(std=0.2)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.fc2(self.fc1(self.conv(x).mean((2, 3))).relu())


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("stabilised", [False, True])
def test_a_peft_adapter_gives_the_same_output_here(tmp_path, stabilised):
    base, x = Small(), torch.randn(5, 3, 6, 6)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=10,
        use_rslora=stabilised,
        target_modules=["conv", "fc1", "fc2"],
        rank_pattern={"fc1": 2},
        alpha_pattern={"fc2": 3},
    )
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    disturb(theirs)
    theirs.save_pretrained(tmp_path)
    adapter = attach_file(read_adapter(tmp_path / "adapter_model.safetensors"), {"unet": base})
    assert adapter.report.matched == 3 and not adapter.report.unused
    assert error(base(x), theirs.eval()(x)) < 1e-5


def test_an_adapter_from_here_gives_the_same_output_in_peft(tmp_path):
    base, x = Small(), torch.randn(5, 3, 6, 6)
    theirs = copy.deepcopy(base)
    adapter = attach(base, AdapterSpec(rank=4, alpha=10, targets="all"))
    disturb(adapter, "")
    adapter.save(tmp_path / "a.safetensors", prefix="")
    state = {f"base_model.model.{k}": v for k, v in safetensors.torch.load_file(tmp_path / "a.safetensors").items()}
    config = peft.LoraConfig(r=4, lora_alpha=10, target_modules=["conv", "fc1", "fc2"])
    theirs = peft.get_peft_model(theirs, config)
    result = peft.set_peft_model_state_dict(theirs, state)
    assert not result.unexpected_keys
    assert error(base(x), theirs.eval()(x)) < 1e-5


def tiny_unet():
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


def tiny_text_encoder():
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return transformers.CLIPTextModel(config).eval()


def pipeline():
    scheduler = diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)
    missing = dict.fromkeys(("vae", "tokenizer", "safety_checker", "feature_extractor"))
    return diffusers.StableDiffusionPipeline(
        unet=tiny_unet(),
        text_encoder=tiny_text_encoder(),
        scheduler=scheduler,
        **missing,
        requires_safety_checker=False,
    )


@torch.no_grad()
def outputs(unet, text_encoder):
    draw = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 8, 8, generator=draw), torch.randn(2, 8, 16, generator=draw)
    ids = torch.tensor([[1, 5, 6, 7, 2, 0, 0, 0]])
    return unet(latents, 500, text).sample, text_encoder(input_ids=ids).last_hidden_state


@pytest.mark.parametrize(
    "layout, targets, kind",
    [("diffusers", "all", "lora"), ("kohya", "attention+feed-forward", "lora"), ("diffusers", "attention", "dora")],
)
def test_a_diffusers_pipeline_loads_our_file_with_the_same_result(tmp_path, layout, targets, kind):
    unet, text_encoder = tiny_unet(), tiny_text_encoder()
    base = outputs(unet, text_encoder)
    layers = {}
    for component, module, spec in (
        ("unet", unet, AdapterSpec(rank=4, alpha=6, targets=targets, kind=kind)),
        ("text_encoder", text_encoder, AdapterSpec(rank=3, alpha=1.5, targets="attention+feed-forward")),
    ):
        adapter = attach(module, spec)
        disturb(adapter, "")
        layers |= {(component, path): factors for (_, path), factors in adapter.updates.items()}
    ours = outputs(unet, text_encoder)
    write_adapter(tmp_path / "a.safetensors", layers, layout)
    pipe = pipeline()
    pipe.load_lora_weights(tmp_path, weight_name="a.safetensors")
    theirs = outputs(pipe.unet, pipe.text_encoder)
    for got, expected, untouched in zip(theirs, ours, base):
        assert error(expected, untouched) > 0.05
        assert error(got, expected) < 1e-5


def test_mixed_ranks_and_alphas_reach_diffusers(tmp_path):
    """In its own layout; diffusers 0.42 drops the less common alphas of attention layers in kohya's."""
    unet = tiny_unet()
    layers = {}
    for rank, alpha, target in ((2, 3, "attn1"), (4, 1, "attn2")):
        adapter = attach(unet, AdapterSpec(rank=rank, alpha=alpha, targets=(target,)))
        disturb(adapter, "")
        layers |= {("unet", path): factors for (_, path), factors in adapter.updates.items()}
    ours, _ = outputs(unet, tiny_text_encoder())
    write_adapter(tmp_path / "a.safetensors", layers)
    pipe = pipeline()
    pipe.load_lora_weights(tmp_path, weight_name="a.safetensors")
    assert error(outputs(pipe.unet, pipe.text_encoder)[0], ours) < 1e-5


def test_a_diffusers_file_gives_the_same_output_here(tmp_path):
    pipe = pipeline()
    pipe.unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=6, target_modules=["to_q", "to_out.0", "conv1"]))
    disturb(pipe.unet)
    layers = diffusers.utils.convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(pipe.unet))
    diffusers.StableDiffusionPipeline.save_lora_weights(
        tmp_path, layers, unet_lora_adapter_metadata={"r": 4, "lora_alpha": 6}
    )
    unet, text_encoder = tiny_unet(), tiny_text_encoder()
    file = read_adapter(tmp_path / "pytorch_lora_weights.safetensors")
    adapter = attach_file(file, {"unet": unet, "text_encoder": text_encoder})
    assert adapter.report.matched == adapter.report.total and file.alpha == 6
    theirs, _ = outputs(pipe.unet, pipe.text_encoder)
    assert error(outputs(unet, text_encoder)[0], theirs) < 1e-5
