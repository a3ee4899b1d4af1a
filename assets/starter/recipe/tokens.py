"""A small CLIP tokenizer: the byte-pair encoding of OpenAI's CLIP, with merges learned on the concept names."""

import json
import shutil
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""  # CLIP's own pattern
_PLAIN = """a an the of in on with and at by for from to photo picture drawing image icon painting illustration
style background small big little large tiny cute old new happy sad angry sleeping flying running sitting standing
one two three many red orange yellow green blue purple pink brown black white gray cyan light dark bright silhouette
shaded outline black-and-white cartoon sketch realistic portrait close up side view front nothing empty"""


def build(names: list[str], keywords: list[str], out: Path, merges: int = 3600) -> None:
    """Learn `merges` merges and write vocab.json, merges.txt and the tokenizer's config into `out`."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=EOS))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True), pre_tokenizers.ByteLevel(False)]
    )
    learner.decoder = decoders.BPEDecoder(suffix="</w>")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) * 2 + merges, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(names * 8 + keywords * 2 + _PLAIN.split() * 20, trainer)
    learned = [tuple(m) for m in json.loads(learner.to_str())["model"]["merges"]]
    # Every byte alone and at a word's end comes first, as in OpenAI's file: no text is ever unknown.
    vocabulary = alphabet + [c + "</w>" for c in alphabet] + ["".join(m) for m in learned] + [BOS, EOS]
    vocabulary = list(dict.fromkeys(vocabulary))
    out.mkdir(parents=True, exist_ok=True)
    (out / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocabulary)}, ensure_ascii=False))
    (out / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in learned), encoding="utf-8")

    from transformers import CLIPTokenizer

    vocab_file, merges_file = str(out / "vocab.json"), str(out / "merges.txt")
    tokenizer = CLIPTokenizer(vocab=vocab_file, merges=merges_file, model_max_length=77, pad_token=EOS)
    tokenizer.save_pretrained(out)
    if not (out / "vocab.json").exists():
        shutil.copy(vocab_file, out)
