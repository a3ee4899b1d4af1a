"""The line above the tabs that says what became of a drop."""

from studio.web.components.html import MOST_LINES
from studio.web.drop import line_html


def test_of_many_files_that_were_left_out_the_line_shows_some_and_counts_the_rest():
    html = line_html(["1 adapter."], problems=[f"<{number}>" for number in range(MOST_LINES + 7)])
    assert html.count('class="bad"') == MOST_LINES + 1 and "and 7 more" in html and "&lt;0&gt;" in html
    assert line_html([]) == ""
