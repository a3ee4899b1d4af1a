"""Which words the starter knows, said before a prompt is drawn."""

import json

from studio.basemodels.vocabulary import read_vocabulary
from studio.services.vocabulary import display_scale, unknown_words, unseen_things, vocabulary
from studio.training.defaults import prompts_from
from studio.workspace import Workspace


def test_unknown_words_are_named_once_and_in_order(tmp_path):
    workspace = Workspace.open(tmp_path)
    said = [
        one.word for one in unknown_words(workspace, "Lighthouse, a red apple, zsk, lighthouse, on a blue background")
    ]
    assert said == ["lighthouse", "zsk"]
    assert [one.word for one in unknown_words(workspace, "zsk, guitar, noto style", triggers=["zsk"])] == []
    message = unknown_words(workspace, "lighthouse")[0].message
    assert message.startswith("lighthouse: the starter does not know this word")


def test_every_name_with_its_synonyms_style_and_background_is_known(tmp_path):
    known = vocabulary(Workspace.open(tmp_path))
    for name in known.names:
        assert known.unknown(f"{name}, {known.styles[0]} style, on a {known.colours[0]} background") == []
        for word in known.synonyms.get(name, ()):
            assert known.unknown(word) == [] and name in known.find(word)
    assert known.find("") == list(known.names) and "guitar" in known.find("guit")
    examples = known.examples()
    assert len(set(examples)) == 6 and all(known.unknown(prompt) == [] for prompt in examples)


def test_a_base_without_a_list_says_nothing(tmp_path):
    assert read_vocabulary(tmp_path) is None
    for damaged in ("[]", "{", json.dumps({"names": 3}), json.dumps({"names": []})):
        (tmp_path / "vocabulary.json").write_text(damaged)
        assert read_vocabulary(tmp_path) is None
    workspace = Workspace.open(tmp_path / "w")
    assert unknown_words(workspace, "anything", base="gone") == []


def test_small_images_are_shown_large():
    assert [display_scale(side) for side in (64, 128, 192, 256, 512, 1024)] == [3, 3, 2, 2, 1, 1]


def test_previews_show_two_captions_and_two_things_that_the_set_has_not(tmp_path):
    workspace = Workspace.open(tmp_path)
    captions = ["monkey face, on a red background", "zsk, rose, on a blue background", "", "dog, on a white background"]
    prompts = prompts_from(captions, " zsk ", unseen_things(workspace, captions))
    assert len(prompts) == 4 and all(prompt.startswith("zsk, ") for prompt in prompts)
    assert prompts[0] == "zsk, monkey face, on a red background" and "zsk, zsk" not in " ".join(prompts)
    known, names = vocabulary(workspace), {prompt.split(", ")[1] for prompt in prompts[2:]}
    assert names <= set(known.names) and not names & {"monkey face", "rose", "dog", "dog face"}
    assert all(known.unknown(prompt, ["zsk"]) == [] for prompt in prompts[2:])
    assert len(unseen_things(workspace, [])) == 2 and unseen_things(workspace, ["a car"], base="gone") == []
