"""Every family at tiny size: the real classes of diffusers and transformers, random weights, saved as people have them.

Words go through the starter's tokenizer, cut to a family's own kind. An image is 64 pixels wide, its latents 8.
"""

from pathlib import Path

import diffusers
import torch
import transformers
from tokenizers import Tokenizer

from studio.workspace import ASSETS

TOKENIZER = ASSETS / "starter" / "tokenizer"
WORDS, END = 1779, 1778
SIDE = 64  # pixels
TEMPLATE = "{% for message in messages %}<|startoftext|>{{ message['content'] }}<|endoftext|>{% endfor %}"


def clip(width: int = 16, projection: int | None = None, **more):
    config = transformers.CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=projection or width,
        bos_token_id=END - 1,
        eos_token_id=END,
        pad_token_id=END,
        **more,
    )
    return transformers.CLIPTextModelWithProjection(config) if projection else transformers.CLIPTextModel(config)


def t5(width: int = 32):
    return transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=WORDS, d_model=width, d_kv=8, d_ff=2 * width, num_layers=1, num_heads=2)
    )


def qwen(width: int = 32):
    return transformers.Qwen3Model(
        transformers.Qwen3Config(
            vocab_size=WORDS,
            hidden_size=width,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=1024,
        )
    )


def vae(channels: int = 4, **more):
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        latent_channels=channels,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=SIDE,
        **more,
    )


def clip_tokenizer():
    return transformers.CLIPTokenizer.from_pretrained(TOKENIZER)


def plain_tokenizer(**more):
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(TOKENIZER / "tokenizer.json")),
        pad_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        model_max_length=512,
        **more,
    )


def unet(states: int, **more):
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=states,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        **more,
    )


SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
DYNAMIC = dict(
    use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
)


def sd(prediction: str = "epsilon", **more):
    return diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=unet(16, **more),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        scheduler=diffusers.DDIMScheduler(
            **SCHEDULE, clip_sample=False, set_alpha_to_one=False, prediction_type=prediction
        ),
    )


def sdxl():
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(24, 12),
        tokenizer_2=clip_tokenizer(),
        scheduler=diffusers.EulerDiscreteScheduler(**SCHEDULE),
        unet=unet(
            40,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            use_linear_projection=True,
            projection_class_embeddings_input_dim=6 * 8 + 12,
            transformer_layers_per_block=(1, 2),
        ),
    )


def sd3(with_t5: bool = True):
    return diffusers.StableDiffusion3Pipeline(
        vae=vae(16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(16, 16),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(16, 12),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5() if with_t5 else None,
        tokenizer_3=plain_tokenizer() if with_t5 else None,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=28,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
    )


def flux(guidance: bool = True):
    return diffusers.FluxPipeline(
        vae=vae(16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=plain_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, **DYNAMIC)
        if guidance
        else diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0),
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 6, 6),
        ),
    )


def z_image():
    return diffusers.ZImagePipeline(
        vae=vae(16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=qwen(),
        tokenizer=plain_tokenizer(chat_template=TEMPLATE),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=diffusers.ZImageTransformer2DModel(
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=32,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 32, 32],
        ),
    )


MAKERS = {
    "sd1": sd,
    "sd2": lambda: sd(use_linear_projection=True),
    "sd2-v": lambda: sd("v_prediction", use_linear_projection=True),
    "sdxl": sdxl,
    "sd3": sd3,
    "flux-dev": flux,
    "flux-schnell": lambda: flux(guidance=False),
    "z-image": z_image,
}


def save(name: str, folder: Path) -> Path:
    """The family's model in the diffusers layout, its numbers the same every time."""
    torch.manual_seed(hash(tuple(name.encode())) % 1000)
    pipeline = MAKERS[name]()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            with torch.no_grad():
                for parameter in part.parameters():  # some begin as zeros, and would hide what is told to them
                    if not parameter.any():
                        parameter.normal_(0, 0.05)
    last = pipeline.vae.quant_conv or pipeline.vae.encoder.conv_out
    with torch.no_grad():  # a VAE is sure of what it encodes: half of its outputs are logarithms of variances
        last.weight.chunk(2)[1].zero_()
        last.bias.chunk(2)[1].fill_(-10)
    pipeline.save_pretrained(folder / name)
    return folder / name
