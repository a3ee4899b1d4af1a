"""What the trigger word helper says of words."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from studio.captioning import trigger_report
from studio.captioning.starter import StarterCaptioner
from studio.captioning.triggers import ordinary_words
from studio.errors import ConfigError


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
    assert not found.rare and not found.known and "z + s + k" in found.message and "can be a trigger" in found.message


def test_a_word_that_means_something(starter):
    assert "red" in ordinary_words() and "apple" in ordinary_words()
    for word in ("Apple", "teddy bear", "king"):
        found = trigger_report(word, starter.tokenizer)
        assert found.known and "already means something" in found.message
    assert "What 'cat' in it means" in trigger_report("redcat", starter.tokenizer).message


def test_rare_and_common_tokens_of_a_large_vocabulary(large):
    rare, common = trigger_report("sks", large), trigger_report("puppy", large)
    assert rare.rare and "one rare token" in rare.message and "make it its own" in rare.message
    assert not common.rare and "seen it often" in common.message
    unknown = trigger_report("žřů", large).message
    assert "doesn't know all characters" in unknown and "often" not in unknown


@pytest.mark.parametrize("word", ["", "  ", "x" * 200])
def test_no_word_is_said(large, word):
    with pytest.raises(ConfigError, match="trigger word"):
        trigger_report(word, large)
