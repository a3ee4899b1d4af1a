import multiprocessing
import threading

from studio.building import building


def builds() -> None:
    with building:
        pass


def test_a_process_forked_while_another_thread_builds_can_build():
    taken, done = threading.Event(), threading.Event()

    def build_for_a_moment() -> None:
        with building:
            taken.set()
            done.wait(0.2)

    thread = threading.Thread(target=build_for_a_moment)
    thread.start()
    taken.wait()
    child = multiprocessing.get_context("fork").Process(target=builds)
    child.start()
    child.join(20)
    done.set()
    thread.join()
    if child.is_alive():
        child.kill()
    assert child.exitcode == 0
