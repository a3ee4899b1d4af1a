"""What un-cooking found, on the page."""

from studio.training.uncook.search import GroupRow, Reading, Uncooked
from studio.web.generate.uncook import report_html


def uncooked(after: float, scale: float) -> Uncooked:
    rows = [GroupRow("down", 8, 1.0, 0.02, 0.02), GroupRow("up", 9, scale, 0.4, 0.4 * scale)]
    before, better = (Reading({}, [loss, loss + 0.01, loss - 0.01], [0.3, 0.3, 0.3]) for loss in (1.4, after))
    return Uncooked("<b>it", rows, before, better, 16, 3, True, 21, 40.0, "it-uncooked.safetensors")


def test_scales_losses_and_drift_are_shown_before_and_after():
    html = report_html(uncooked(0.8, 0.25))
    assert "up × 0.25" in html and "+40 % against the base to −20 % against the base" in html
    assert "<td>0.25</td><td>40 %</td><td>10 %</td>" in html and "it-uncooked" in html and "<b>it" not in html
    assert "images that the search did not see" in html and "21 evaluations" in html


def test_nothing_better_is_an_answer():
    html = report_html(uncooked(1.399, 0.25))
    assert "Nothing better was found" in html and "as it was" in html


def test_a_lower_strength_that_does_nearly_as_much_is_named():
    found = uncooked(0.8, 0.25)
    near, far = (Reading({}, [loss] * 3, [0.3] * 3) for loss in (0.802, 0.9))
    assert found.beside_strength({0.75: far, 0.5: near}) == (
        "Strength 0.5 of the old file does nearly as much: held-out loss −20 % against the base, drift 30 %.",
    )
    assert found.beside_strength({0.75: far}) == ()
