"""What was measured of a run's images, on the page."""

from studio.training.influence import Influence
from studio.training.paired import Difference
from studio.web.train.influence import report_html


def test_a_card_says_whether_the_image_hurts_and_what_differs():
    one = Influence("<i>.png", 41, 60, 9, 320, 0.36, 0.35, Difference(0.03, 0.002, 8), True, ["Changed."], 30.0)
    html = report_html([one])
    assert (
        "hurts" in html and "3.00 ± 0.20 % lower after 20 steps" in html and "<i>" not in html.replace("<i style", "")
    )
    assert (
        "checkpoint of step 40" in html and "9 of 320 places" in html and "bit for bit" in html and "Changed." in html
    )
    assert report_html([]) == ""
