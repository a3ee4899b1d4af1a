"""What was measured of a run's words, on the page."""

from studio.training.caption_words.effects import WordEffect, WordReport
from studio.training.paired import Difference
from studio.web.train.words import report_html


def test_a_finding_shows_its_sentence_and_leads_to_the_bulk_edit():
    one = WordEffect("<b>", False, 9, 0.9, 1, 7, 1.0, 1.0, 0.8, 0.9, Difference(0.5, 0.02, 8), Difference(0.1, 0.1, 8))
    html = report_html(WordReport(60, [one], ["2 words on fewer than 3 images."], [], 8, 3.0))
    assert "second trigger" in html and 'data-go="view|many"' in html and "+50 % ± 2" in html
    assert "&lt;b&gt;" in html and "<b><b>" not in html and "2 words on fewer" in html
    assert report_html(None) == "" and "No word stands out" in report_html(WordReport())
