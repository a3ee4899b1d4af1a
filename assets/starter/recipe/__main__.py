"""From an empty folder to a starter model: python assets/starter/recipe [--device cuda] [--minutes 90]

Needs `pip install -e '.[recipe]'` and npm. Stages, each kept in --work and not done twice: art, VAE, CLIP, latents,
U-Net, the VAE's decoder once more, export, the captioner's calibration. Every stage is seeded, saves itself every five
minutes, and goes on from there when the same command is given again, on the same or another device.

--neutral makes what is shipped now: the parts of --begin as they are, with a text encoder that is trained on to ignore
unknown words (neutral.py).
"""

import argparse
import shutil
from pathlib import Path

import art
import autoencoder
import calibrate
import clip
import judge
import lessons
import neutral
import pipeline
import tokens
import torch
import unet
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

ASSETS = Path(__file__).resolve().parent.parent.parent
SHARES = {"vae": 0.12, "clip": 0.2, "unet": 0.63, "decoder": 0.05}  # of the time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("work/starter"), help="checkpoints and caches")
    parser.add_argument("--out", type=Path, default=ASSETS / "starter")
    parser.add_argument("--begin", type=Path, help="a starter whose tokenizer and weights it begins from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: as torch chooses")
    parser.add_argument("--minutes", type=float, default=180, help="of training, all stages together")
    parser.add_argument("--batch", type=int, default=24, help="of the U-Net; the others follow")
    parser.add_argument("--widths", type=int, nargs=3, default=unet.WIDTHS, help="of the U-Net's levels")
    parser.add_argument("--names", type=int, default=0, help="how many; 0: all 569 (the 120 of release 0.1 first)")
    parser.add_argument("--neutral", action="store_true", help="train on the text encoder of --begin alone")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    modules = art.fetch(given.work)
    names = list(dict.fromkeys([*art.NAMES, *art.more_names()]))[: given.names or None]
    if given.neutral:
        _neutral(given, modules)
    else:
        _whole(given, modules, art.concepts(modules, names))


def _whole(given: argparse.Namespace, modules: Path, known: list[art.Concept]) -> None:
    work, parts, device = given.work, given.work / "parts", given.device
    minutes = {stage: share * given.minutes for stage, share in SHARES.items()}
    images = art.render_styles(modules, [c.slug for c in known], art.BASE_STYLES, work / "render")
    everything = art.everything(modules, work / "render")
    size = max(1, given.batch // 24)
    if not (parts / "vae").exists():
        autoencoder.train(
            everything, parts / "vae", work, minutes["vae"], batch=16 * size, device=device, begin=given.begin
        )
    if not (parts / "tokenizer").exists():
        if given.begin:
            shutil.copytree(given.begin / "tokenizer", parts / "tokenizer")
        else:
            tokens.build([c.name for c in known], [k for c in known for k in c.keywords], parts / "tokenizer")
    tokenizer, others = CLIPTokenizer.from_pretrained(parts / "tokenizer"), art.other_words(modules)
    if not (parts / "feature_extractor").exists():
        batch = min(len(known), 96 * min(size, 4))
        clip.train(
            known, images, others, tokenizer, parts, work, minutes["clip"], batch, device=device, begin=given.begin
        )
    vae = AutoencoderTiny.from_pretrained(parts / "vae").eval().to(device)
    text = CLIPTextModel.from_pretrained(parts / "text_encoder").eval()
    data = unet.cache(images, vae, work / "latents.pt")
    unet.train(
        data, known, others, text, tokenizer, parts, work, minutes["unet"], given.batch, device=device,
        widths=tuple(given.widths), begin=given.begin,
    )  # fmt: skip
    autoencoder.train(everything, parts / "vae", work, minutes["decoder"], True, batch=16 * size, device=device)
    pipeline.export(parts, given.out)
    _finish(given, modules, known)


def _neutral(given: argparse.Namespace, modules: Path) -> None:
    begin, known, others = given.begin or given.out, art.concepts(modules), art.other_words(modules)
    images = art.render_styles(modules, [c.slug for c in known], art.BASE_STYLES, given.work / "render")
    text, teacher = (CLIPTextModel.from_pretrained(begin / "text_encoder", dtype=torch.float32) for _ in range(2))
    denoiser = UNet2DConditionModel.from_pretrained(begin / "unet").eval()
    vae = AutoencoderTiny.from_pretrained(begin / "vae").eval()
    tokenizer = CLIPTokenizer.from_pretrained(begin / "tokenizer")
    text = neutral.train(
        text, denoiser, vae, tokenizer, known, images, others, given.work, 0.75 * given.minutes, device=given.device
    )
    data = unet.cache(images, vae, given.work / "neutral-latents.pt")
    text = neutral.through_unet(
        text, teacher, denoiser, tokenizer, data, known, others, given.work, 0.25 * given.minutes, device=given.device
    )
    pipeline.write_text_encoder(text.cpu(), given.out)
    _finish(given, modules, known)


def _finish(given: argparse.Namespace, modules: Path, known: list[art.Concept]) -> None:
    """The words of the model, its captioner's namer and how sure that may be, the judge, and the sample datasets."""
    lessons.vocabulary(known, given.out / "vocabulary.json")
    glyphs, truth, style = judge.renders(known, modules, given.work / "render")
    held, looks = judge.held_out(truth), judge.looks(glyphs, rounds=12)
    of_namer, of_judge = (
        torch.isin(style, torch.tensor([list(judge.STYLES).index(name) for name in styles]))
        for styles in (judge.NAMERS, judge.JUDGES)
    )
    of_judge &= ~held
    namer = judge.train(looks[:, of_namer], truth[of_namer], len(known), outliers=judge.outliers_of(known, modules))
    judge.save(namer, given.out / "namer.safetensors")
    print("namer, in styles that it never saw:", judge.accuracy(namer, glyphs[~of_namer], truth[~of_namer]))
    judging = judge.train(looks[:, of_judge], truth[of_judge], len(known))
    judge.save(judging, given.out / "recipe" / "judge.safetensors")
    print("judge, on held-out renders:", judge.accuracy(judging, glyphs[held], truth[held]))
    print(calibrate.write(known, modules, given.out, given.work / "render"))
    if given.out == ASSETS / "starter":
        lessons.write(modules, ASSETS / "datasets")


if __name__ == "__main__":
    main()
