"""What the trigger word helper says of words."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from studio.captioning import trigger_report
from studio.captioning.starter import StarterCaptioner
from studio.captioning.triggers import ordinary_words
from studio.errors import ConfigError
from tests.captioning import tiny


@pytest.fixture(scope="module")
def starter():
    return StarterCaptioner()


@pytest.fixture(scope="module")
def large():
    """20,000 whole words, in the order of how often they are seen; "sks" is a late one."""
    words = {"<unk>": 0, "puppy": 900} | {f"word{i}": i for i in range(1, 20_000) if i not in (900, 19_500)}
    inner = Tokenizer(models.WordLevel(words | {"sks": 19_500}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", pad_token="<unk>")


def test_a_word_in_pieces(starter):
    found = trigger_report(" zsk ", starter.tokenizer)
    assert found.word == "zsk" and "".join(found.pieces) == "zsk" and len(found.pieces) == 3
    assert not found.rare and found.known == "" and "z + s + k" in found.message and "can be a trigger" in found.message


def test_a_word_that_means_something(starter):
    assert "red" in ordinary_words() and "apple" in ordinary_words()
    for word in ("Apple", "teddy bear", "king"):
        found = trigger_report(word, starter.tokenizer)
        assert found.known == word.lower() and "already means something" in found.message
    assert "What 'cat' in it means" in trigger_report("redcat", starter.tokenizer).message


def test_rare_and_common_tokens_of_a_large_vocabulary(large):
    rare, common = trigger_report("sks", large), trigger_report("puppy", large)
    assert rare.rare and "one rare token" in rare.message and "make it its own" in rare.message
    assert not common.rare and "seen it often" in common.message
    assert "doesn't know all characters" in trigger_report("žřů", large).message


def test_the_text_encoder_says_what_a_word_lies_beside(starter):
    found = trigger_report("puppy", starter.tokenizer, starter.text)
    assert found.nearest[0][0] == "dog" and len(found.nearest) == 3
    assert found.nearest[0][1] >= found.nearest[1][1] >= found.nearest[2][1] > -1


def test_a_word_that_the_encoder_takes_for_another_is_said():
    words = tiny.tokenizer(["<s>", "</s>"], bos_token="<s>", eos_token="</s>", pad_token="</s>")
    ids = {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257}
    config = CLIPTextConfig(**tiny.VISION, vocab_size=len(words), max_position_embeddings=32, **ids)
    torch.manual_seed(0)
    encoder = CLIPTextModel(config).eval()
    with torch.no_grad():  # it can't tell Z from c
        letters = encoder.get_input_embeddings().weight
        letters[words.convert_tokens_to_ids("Z")] = letters[words.convert_tokens_to_ids("c")]
    found = trigger_report("Zat", words, encoder)
    assert found.known == "cat" and "beside 'cat'" in found.message


def test_any_encoder_will_do_and_no_word_is_said(large):
    class Encoder(torch.nn.Module):  # as T5's answer: no pooler_output
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(20_000, 8)

        def forward(self, input_ids, attention_mask):
            return type("Answer", (), {"last_hidden_state": self.table(input_ids)})()

    assert len(trigger_report("sks", large, Encoder()).nearest) == 3
    for word in ("", "  ", "x" * 200):
        with pytest.raises(ConfigError, match="trigger word"):
            trigger_report(word, large)
