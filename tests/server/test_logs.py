"""What the server writes: long lines are cut, and floods are left out and counted."""

import io
import sys
import traceback

from studio.server.logs import AT_ONCE, EACH_SECOND, LINE, Cut


def test_a_long_line_is_cut_and_short_ones_are_whole():
    stream = io.StringIO()
    try:
        raise ValueError(f"Received inputs:\n[{'x' * 5_000_000}]\nthe end")
    except ValueError:
        traceback.print_exc(file=Cut(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "the end" and lines[-3].endswith("Received inputs:")
    assert "4,998,002 characters left out" in lines[-2] and len(lines[-2]) < LINE + 100
    assert lines[-2].startswith("[xxx") and lines[-2].endswith("xxx]")


def test_a_flood_is_left_out_and_counted():
    now, stream = [0.0], io.StringIO()
    cut = Cut(stream, lambda: now[0])
    for _ in range(100_000):
        cut.write("x" * 999 + "\n")
    assert len(stream.getvalue()) == AT_ONCE
    now[0] += 1
    cut.write("all is well\n")
    assert stream.getvalue().endswith("98,000 lines were left out: too many at once …\nall is well\n")
    for _ in range(100):
        cut.write("x" * 999 + "\n")
    assert len(stream.getvalue()) < AT_ONCE + EACH_SECOND + 1000


def test_it_stands_for_its_stream():
    assert Cut(sys.stderr).encoding == sys.stderr.encoding and Cut(sys.stdout).fileno == sys.stdout.fileno
