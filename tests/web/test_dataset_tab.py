"""Parts of the Dataset tab, called as the page calls them."""

import shutil
import zipfile

import gradio as gr
import pytest
from PIL import Image

from studio.server.settings import Settings
from studio.services import base_models, captioning, datasets
from studio.services.base_models import DEFAULT_SIZE
from studio.services.jobs import latest
from studio.web.components.context import page_context
from studio.web.components.html import job_report
from studio.web.dataset import captioners, captions, check, image_editor, images
from studio.web.dataset.context import DatasetContext
from studio.web.dataset.views import chips
from studio.workspace import Workspace
from tests.basemodels import tiny as tiny_base
from tests.captioning import tiny

SKIP = gr.skip()


@pytest.fixture
def workspace(tmp_path):
    """The dataset "ink" with three images, two of them captioned."""
    workspace = Workspace.open(tmp_path / "workspace")
    folder = workspace.datasets / "ink"
    folder.mkdir()
    for number, name in enumerate(("one", "two", "zero")):
        Image.new("RGB", (64, 64), (80 * number, 90, 90)).save(folder / f"{name}.png")
    (folder / "one.txt").write_text("a red square")
    return workspace


@pytest.fixture
def context(workspace):
    with gr.Blocks() as demo:
        page = page_context(workspace, Settings(workspace=workspace.root, browser=False), demo)
        choice = gr.Dropdown()
        states: dict = {"revision": gr.State(""), "requested": gr.State("")}
        context = DatasetContext(**vars(page), choice=choice, onward=gr.Button(), **states)
        context.captions = captions.build(context)
        with gr.Tabs():
            context.images = images.build(context)
            yield context


@pytest.mark.full
def test_a_deleted_dataset_is_reported_once_where_it_was_checked_or_compared(context, workspace):
    checked, compared = check.build(context), captioners.build(context)
    for start in (
        lambda: captioning.score_captions(workspace, "ink"),
        lambda: captioning.start_comparing(workspace, "ink", [("starter", {})], ["one.png"]),
    ):
        start().wait()
    assert "a red square" in checked.watch(None, "ink")[checked.worst]
    shutil.rmtree(workspace.datasets / "ink")
    news = checked.watch(None, "ink")
    assert "no dataset called" in news[checked.progress] and not news[checked.worst]
    assert checked.watch(news[checked.seen], "ink") == SKIP
    news = compared.watch(None)
    assert "no dataset called" in news[compared.progress] and "one.png" in news[compared.table]  # its captions stay
    assert compared.watch(news[compared.seen]) == SKIP


def test_the_checked_resolution_follows_the_base_until_one_is_typed(context, workspace, tmp_path):
    part = check.build(context)
    assert part.follow_base(("starter", DEFAULT_SIZE), DEFAULT_SIZE) == SKIP
    base_models.choose(workspace, base_models.remember(workspace, str(tiny_base.save("flux-dev", tmp_path))))
    news = part.follow_base(("starter", DEFAULT_SIZE), DEFAULT_SIZE)
    known = news[part.suggested]
    assert news[part.resolution] == known[1] == 64
    assert part.follow_base(known, 64) == SKIP
    base_models.choose(workspace, "starter")
    assert part.follow_base(known, 64)[part.resolution] == DEFAULT_SIZE
    assert part.resolution not in part.follow_base(known, 500)


@pytest.mark.full
def test_captions_can_be_scored_by_a_named_clip(context, tmp_path):
    part, found = check.build(context), []
    for clip in ("", str(tiny.clip(tmp_path / "clip"))):
        part.start_score("ink", "", clip, False)
        job = latest["score"].job
        job.wait()
        assert not job.error and job.message == "1 caption scored, the worst fit first."
        found.append(job.result.rows[0].similarity)
    assert found[0] != found[1]


def listing(**changed):
    """Values of `Images.listing`: the dataset, the order, then the filter's fields."""
    fields = {
        "find": "",
        "has": None,
        "lacks": None,
        "captioned": "All",
        "pattern": False,
        "fewest": None,
        "most": None,
        "smaller": None,
        "larger": None,
        "name": "",
    } | changed
    return ["ink", "Name", False, *fields.values()]


def test_removing_an_image_opens_the_one_that_takes_its_place(context, workspace):
    """It used to leave the removed image open, with a traceback in the log."""
    part, grid = image_editor.build(context), context.images
    files = grid.show(0, "", *listing())[grid.shown]
    assert [file for file, _ in files] == ["one.png", "two.png", "zero.png"]
    for removed, following in (("ink/two.png", "ink/zero.png"), ("ink/zero.png", "ink/one.png"), ("ink/one.png", "")):
        news = part.remove_image(removed, 0, files, *listing())
        assert news[part.picked] == following
        assert not (workspace.datasets / removed).exists()
        assert (news[part.large] is None) == (not following) and news[part.editor]["visible"] == bool(following)
        assert news[context.revision]
        files = news.get(grid.shown)


def test_the_next_image_comes_after_one_that_its_new_caption_took_out_of_the_filter(context):
    part, only = image_editor.build(context), listing(captioned="Without caption")
    files = context.images.show(0, "", *only)[context.images.shown]
    assert [file for file, _ in files] == ["two.png", "zero.png"]
    news = part.show_next("ink/two.png", "a caption", "ink/two.png\n", "", 0, files, *only)
    assert news[part.picked] == "ink/zero.png" and news[context.images.shown] == [["zero.png", ""]]


@pytest.mark.parametrize(
    ("act", "arg", "tags"),
    [
        ("add", "c, d", ["a", "b", "c", "d"]),
        ("drop", "0", ["b"]),
        ("move", "1 0", ["b", "a"]),
        ("drop", "7", None),
        ("move", "0", None),
        ("open", "0", None),
    ],
)
def test_what_a_chip_sends_edits_the_tags_or_nothing(act, arg, tags):
    assert image_editor.edited_tags(["a", "b"], act, arg) == tags


def test_an_author_that_is_html_stays_text():
    """They stand in a file of the dataset's folder, where anybody may have written."""
    assert "<img" not in chips([("a tag", '"><img src=x onerror=alert(1)>')], prose=False)


def test_what_became_of_every_file_stands_above_the_images(context, workspace):
    folder = workspace.datasets / "ink"
    (folder / "notes<b>.md").write_text("x")
    (folder / "art.tga").write_bytes(b"x")
    frames = [Image.new("L", (64, 64), grey) for grey in (0, 255)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    listed = context.images.show(0, "", "ink", *(part.value for part in context.images.listing[1:]))
    html = listed[context.images.summary]
    assert "<b>4</b> images · <b>1</b> with a caption · 1 file left out, 1 file of another kind (notes&lt;b&gt;" in html
    assert "Left out: art.tga: .tga files are not read" in html
    assert "moving.gif: several images (an animation, or pages), of which the first is used." in html


def test_an_import_says_what_it_took_skipped_and_uses_otherwise(workspace, tmp_path):
    frames = [Image.new("L", (64, 64), grey) for grey in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as out:
        out.write(tmp_path / "moving.gif", "moving.gif")
        for number in range(30):
            out.writestr(f"notes{number}<b>.md", "x")
    job = datasets.start_import(workspace, "new", [tmp_path / "mine.zip"])
    job.wait()
    html = job_report(job)
    assert "new has 1 image now." in html and "moving.gif: several images" in html
    assert "Skipped notes0&lt;b&gt;.md: not an image" in html and "and 10 more" in html
    assert html.count("Skipped") == 20
