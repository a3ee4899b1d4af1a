"""From an empty folder to the finished starter model: python assets/starter/recipe

Needs `pip install -e '.[recipe]'` and npm. Steps, each kept in --work and not done twice: art, codec, CLIP, latents,
UNet, the codec's decoder once more, export. About three hours on two CPU cores.
"""

import argparse
from pathlib import Path

import art
import clip
import codec
import lessons
import pipeline
import tokens
import unet
from diffusers import AutoencoderTiny
from transformers import CLIPTextModel, CLIPTokenizer

ASSETS = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("work/starter"), help="checkpoints and caches")
    parser.add_argument("--out", type=Path, default=ASSETS / "starter")
    parser.add_argument("--codec-steps", type=int, default=4500)
    parser.add_argument("--decoder-steps", type=int, default=1500)
    parser.add_argument("--clip-steps", type=int, default=1300)
    parser.add_argument("--unet-steps", type=int, default=16000)
    given = parser.parse_args()
    work, parts = given.work, given.work / "parts"

    modules = art.fetch(work)
    known = art.concepts(modules)
    lessons.write(modules, ASSETS / "datasets")
    lessons.vocabulary(modules, given.out / "vocabulary.json")
    pictures = art.render_styles(modules, [c.slug for c in known], art.BASE_STYLES, work / "render")
    everything = art.everything(modules, work / "render")
    if not (parts / "vae").exists():
        codec.train(everything, parts / "vae", given.codec_steps)
    if not (parts / "tokenizer").exists():
        tokens.build([c.name for c in known], [k for c in known for k in c.keywords], parts / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(parts / "tokenizer")
    if not (parts / "feature_extractor").exists():
        clip.train(known, pictures, tokenizer, parts, given.clip_steps)
    vae = AutoencoderTiny.from_pretrained(parts / "vae").eval()
    text = CLIPTextModel.from_pretrained(parts / "text_encoder").eval()
    data = unet.cache(known, pictures, vae, text, tokenizer, work / "cache.pt")
    unet.train(data, parts, work, given.unet_steps)
    if not (work / "decoder-done").exists():
        codec.train(everything, parts / "vae", given.decoder_steps, decoder_only=True)
        (work / "decoder-done").touch()
    pipeline.export(parts, given.out)


if __name__ == "__main__":
    main()
