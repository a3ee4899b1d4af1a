"""A pause stands still only once the checkpoint it asked for was tried, and a stop ends it."""

import threading

from studio.services.jobs import Job, jobs
from studio.services.runs import _follow
from studio.training.events import Checkpoint, Preparing, Step, Warned


def step(number: int) -> Step:
    return Step(number, 1.0, 1.0, 1e-3, 1.0, 1.0)


def wait_until_paused(job: Job) -> None:
    for _ in range(500):
        if job.paused:
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not pause")


def run_until_paused(answer) -> tuple[list, Job, threading.Thread]:
    """A trainer that answers a wish to save with `answer`; paused at its first event."""
    job, save, pulled = Job("train", "x"), threading.Event(), []
    job.pause_event.set()

    def events():
        for number in range(1, 6):
            pulled.append(number)
            if save.is_set():
                save.clear()
                yield answer
            yield step(number)

    thread = threading.Thread(target=_follow, args=(job, jobs.turns(events()), save), daemon=True)
    thread.start()
    wait_until_paused(job)
    return pulled, job, thread


def test_no_event_is_asked_for_after_the_checkpoint_until_it_is_resumed():
    pulled, job, thread = run_until_paused(Checkpoint(2, "checkpoints/000002"))
    with jobs.device():  # free for an image
        assert pulled == [1, 2]
    job.pause_event.clear()
    thread.join(10)
    assert pulled == [1, 2, 3, 4, 5] and not job.paused


def test_a_checkpoint_that_could_not_be_written_pauses_all_the_same():
    pulled, job, thread = run_until_paused(Warned(2, "the disk is full"))
    assert pulled == [1, 2]
    job.stop()
    thread.join(10)
    assert not thread.is_alive() and not job.paused


def test_while_images_are_encoded_a_pause_needs_no_checkpoint():
    job, save = Job("train", "x"), threading.Event()
    job.pause_event.set()
    thread = threading.Thread(target=_follow, args=(job, iter([Preparing(0, 1, 9), step(1)]), save), daemon=True)
    thread.start()
    wait_until_paused(job)
    assert not save.is_set()
    job.pause_event.clear()
    thread.join(10)
    assert job.done == 1
