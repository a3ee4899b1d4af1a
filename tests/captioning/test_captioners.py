"""Each captioner's own loading and writing, on models with random weights: a change of API shows here."""

import threading

import pytest
import torch

from studio.captioning import list_captioners, load_captioner
from studio.captioning.chat import tidy
from studio.captioning.generators import Stopped
from studio.errors import BaseModelError, ConfigError
from tests import tiers
from tests.captioning import tiny

BUILD = {"blip": tiny.blip, "blip2": tiny.blip2, "florence": tiny.florence, "chat": tiny.qwen, "joycaption": tiny.llava}


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    built = {name: build(tmp_path_factory.mktemp(name)) for name, build in BUILD.items()}
    built["older qwen"] = tiny.qwen(tmp_path_factory.mktemp("qwen"), newer=False)
    built["older llava"] = tiny.llava(tmp_path_factory.mktemp("llava"), told=False)
    built["older blip2"] = tiny.blip2(tmp_path_factory.mktemp("blip2"), queries=None)
    return built


def load(name, folder, **settings):
    steady = {"temperature": 0} if name in ("chat", "joycaption") else {}
    return load_captioner(name, {"model": str(folder), "max_tokens": 8, **steady, **settings})


@pytest.mark.parametrize(
    ("name", "which"),
    [*tiers.default([(name, name) for name in BUILD], ("florence", "florence"), ("chat", "chat"))]
    + [
        tiers.in_full(*older)
        for older in (("chat", "older qwen"), ("joycaption", "older llava"), ("blip2", "older blip2"))
    ]
    + [tiers.in_full("chat", "joycaption")],
)
def test_it_loads_and_writes_and_a_batch_says_what_single_images_say(folders, name, which):
    asked = {"prompt": "?"} if name in ("chat", "joycaption") else {}  # so short that the images are most of it
    captioner, images = load(name, folders[which], **asked), tiny.images(3)
    together = captioner.caption(images)
    assert together == [captioner.caption([image])[0] for image in images]
    assert len(together) == 3 and any(together) and len(set(together)) > 1, together  # it looks at the images
    marks = ("\n", "<s>", "</s>", "<pad>", "<image>", "<|", "[SEP]")
    assert not any(mark in text for text in together for mark in marks)
    assert captioner.caption([]) == []
    captioner.close()
    assert captioner.model is None


@pytest.mark.parametrize("name", tiers.default(BUILD, "blip2", "florence"))
def test_it_works_in_half_precision(folders, name):
    captioner = load(name, folders[name], precision="bf16", device="cpu")
    assert next(captioner.model.parameters()).dtype == torch.bfloat16
    assert len(captioner.caption(tiny.images(2))) == 2


class SetWhenAskedTwice(threading.Event):
    asked = 0

    def is_set(self):
        self.asked += 1
        return self.asked >= 2


@pytest.mark.parametrize("name", tiers.default(BUILD, "blip", "chat"))
def test_a_stop_ends_it_in_the_middle_of_a_sentence(folders, name):
    captioner = load(name, folders[name], max_tokens=200)
    captioner.stop = SetWhenAskedTwice()
    with pytest.raises(Stopped):
        captioner.caption(tiny.images(1))
    assert 2 < captioner.stop.asked < 10, "asked at each word, and once behind them"


@pytest.mark.parametrize("name", tiers.default(["blip", "blip2", "older blip2"]))
def test_blip_goes_on_from_a_prompt_and_leaves_it_out(folders, name):
    captioner = load(name.split()[-1], folders[name], prompt="A painting  of", max_tokens=12)
    plain = load(name.split()[-1], folders[name], max_tokens=12)
    texts, images = captioner.caption(tiny.images(3)), tiny.images(3)
    assert texts != plain.caption(images)
    assert not any(text.startswith("a painting of") for text in texts)


def test_florence_is_asked_for_three_lengths(folders):
    lengths = ("short", "detailed", "very detailed")
    texts = [load("florence", folders["florence"], detail=one).caption(tiny.images(1))[0] for one in lengths]
    assert len(set(texts)) == 3, texts
    with pytest.raises(ConfigError, match="florence.detail: must be 'short'"):
        load("florence", folders["florence"], detail="endless")


def test_a_chat_puts_image_prompt_and_system_where_the_model_wants_them(folders):
    qwen = load("chat", folders["chat"])
    assert qwen.render("Say {it}", "Be brief") == (
        "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
        "Say {it}<|im_end|>\n<|im_start|>assistant\n"
    )
    joy = load("joycaption", folders["joycaption"])
    assert joy.text.startswith(
        "<|begin_of_text|>[system]You are a helpful image captioner.<|eot_id|>[user]<image>Write"
    )
    assert joy.text.endswith("<|eot_id|>[assistant]")


def test_a_chat_begins_with_one_token_for_the_beginning(folders):
    joy, seen = load("joycaption", folders["joycaption"]), []
    generate = joy.model.generate
    joy.model.generate = lambda **given: seen.append(given["input_ids"]) or generate(**given)
    joy.caption(tiny.images(2))
    begin = joy.processor.tokenizer.bos_token_id
    assert (seen[0] == begin).sum(1).tolist() == [1, 1] and seen[0][:, 0].tolist() == [begin, begin]
    assert (seen[0] == joy.processor.image_token_id).sum(1).tolist() == [16, 16]


def test_a_chat_template_that_knows_no_image_gets_one_and_none_at_all_is_said(tmp_path):
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content + '' }} {% endfor %}"
    joy = load("joycaption", tiny.llava(tmp_path, chat=plain), prompt="What is it?", system="")
    assert joy.text == "user: <image>\nWhat is it? "
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    with pytest.raises(BaseModelError, match="no chat template that takes an image"):
        load("joycaption", tmp_path)


def test_sampling_repeats_with_its_seed_and_leaves_torch_s_own_numbers_alone(folders):
    def say(seed):
        captioner = load("chat", folders["chat"], temperature=1.5, top_p=1.0, seed=seed, max_tokens=24)
        return captioner.caption(tiny.images(2))

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert say(1) == say(1) != say(2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_sentence_that_was_cut_off_and_thoughts_are_left_out():
    assert tidy("A cat. It sits on\n a mat. And th", cut=True) == "A cat. It sits on a mat."
    assert tidy("A cat on a", cut=True) == "A cat on a"
    assert tidy("A cat. It sits", cut=False) == "A cat. It sits"
    assert tidy("<think>hm\nhm</think>\n A cat.") == "A cat."


def test_every_captioner_has_a_line_a_default_model_and_described_settings():
    for name, kind in list_captioners().items():
        assert kind.about and "\n" not in kind.about
        assert (name in ("starter", "server")) == (kind.model == "")
        for setting, field in kind.settings.model_fields.items():
            assert field.description, f"{name}.{setting}"
            assert not field.is_required()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"beams": 0}, "blip.beams: must be at least 1 (you gave 0)."),
        ({"beans": 1}, "blip.beans: is not a setting."),
        ({"model": ""}, "blip.model: must not be empty (you gave '')."),
    ],
)
def test_a_setting_that_can_t_be_is_said(settings, line):
    with pytest.raises(ConfigError) as error:
        load_captioner("blip", settings)
    assert str(error.value) == line


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_said(folders):
    with pytest.raises(BaseModelError, match="no cuda device"):
        load("blip", folders["blip"], device="cuda")


def test_weights_of_something_else_are_not_taken_for_the_model_s(folders, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_bytes((folders["blip"] / "config.json").read_bytes())
    save_file({"x": torch.zeros(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match="doesn't hold the weights of a blip model"):
        load("blip", tmp_path)
