"""The drawing of a run: fits any width, says what it must, and is drawn on a real terminal."""

import os
import pty
import re
import struct
import sys
from fcntl import ioctl
from pathlib import Path
from subprocess import Popen
from termios import TIOCSWINSZ

import pytest
from rich.console import Console as Terminal

from clue.monitor.console import RunStatus, Validation, duration, recall_text, sparkline, view
from clue.monitor.throughput import Throughput
from tests.conftest import ROOT, TinyRun

SPEED = Throughput(
    pairs_per_s=1234.5,
    tokens_per_s=9.0,
    events_per_item=3.0,
    packing=1.0,
    model_flops=1e9,
    mfu=0.314,
    hfu=0.4,
    data_wait=0.02,
    seconds=0.1,
    processor_seconds=0.1,
    memory_bytes=3 * 2**30,
    recompiles=0,
)


def some_status() -> RunStatus:
    status = RunStatus("food_kitchen", steps=400, first=0, step=100)
    status.began -= 61  # seconds for 100 steps, so 183 for the other 300
    status.loss, status.recall, status.scale = 3.2141, 0.31, 20.0
    status.grad_norm, status.lr = 0.82, 2e-3
    status.losses.extend([5.0, 4.0, 3.0])
    status.speed = SPEED
    status.latest = Validation(100, 6.64, 0.062, 0.01)
    status.best = Validation(50, 6.6, 0.061, 0.01)
    status.saved = 100
    status.alerts = ["loss 9 at step 90, where 5 is [usual]. " + "Do this or that. " * 12]
    return status


def drawn(status: RunStatus, width: int) -> str:
    terminal = Terminal(width=width, color_system=None)
    with terminal.capture() as captured:
        terminal.print(view(status))
    return captured.get()


def test_the_drawing_says_what_there_is_to_see() -> None:
    lines = [line.rstrip() for line in drawn(some_status(), 100).splitlines()]
    assert re.fullmatch(r"food_kitchen ━+ +100/400  25%  0:03:03 left", lines[0])
    assert lines[1:7] == [
        "loss        3.214 █▅▁  recall 0.310",
        "step        gradient 0.82  lr 2.0e-03  temperature 0.050",
        "speed       1,234 pairs/s  MFU 31%  data wait 2%  memory 3.0 GiB",
        "held out    entropy 6.640, R@10 0.062 (chance 0.010) (step 100)",
        "best        entropy 6.600, R@10 0.061 (chance 0.010) (step 50)",
        "checkpoint  step 100",
    ]
    assert lines[7].startswith("! loss 9 at step 90, where 5 is [usual]. Do this")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(width: int) -> None:
    text = drawn(some_status(), width)
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for word in ("3.214", "0.310", "2.0e-03", "31%", "6.640,", "6.600,", "[usual]."):
        assert word in words, word
    assert words.count("Do") == 12 and ("100/400" in text or width == 20)


def test_a_name_that_looks_like_markup_stays_as_it_is() -> None:
    status = RunStatus("[red]a[/red]", steps=4, first=0, step=1)
    assert drawn(status, 80).startswith("[red]a[/red] ")


def test_the_drawing_of_a_run_that_has_not_begun_holds() -> None:
    text = drawn(RunStatus("demo", steps=10, first=0, step=0), 60)
    assert "0/10  0%" in text and "left" not in text and "the first is under way" in text


def test_the_bar_is_as_long_as_what_is_done() -> None:
    for step, share in ((0, 0.0), (100, 0.25), (400, 1.0)):
        line = drawn(RunStatus("demo", steps=400, first=0, step=step), 70).splitlines()[0]
        right = line[re.search(r"\d+/400", line).start() :]  # pyright: ignore[reportOptionalMemberAccess]
        room = 70 - len("demo ") - len(right) - 1
        halves = 2 * line.count("━") + line.count("╸")  # a cell has two
        assert room > 30 and halves == int(2 * share * room)


def test_the_sparkline_goes_from_the_lowest_bar_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7, 7, 7], 3) == "▁██"
    assert sparkline([2.0, 2.0], 9) == "▁▁"
    assert sparkline([1.0], 9) == ""


def test_durations_are_clock_times() -> None:
    seconds = (0, 42.4, 185, 7380, 86_400 * 3 + 3600 * 4)
    words = ["0:00:00", "0:00:42", "0:03:05", "2:03:00", "3 days, 4:00:00"]
    assert [duration(s) for s in seconds] == words


def test_a_run_on_a_narrow_terminal_draws_its_block(tiny_run: TinyRun, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "clue/pretrain.py", "name=drawn", f"corpus={tiny_run.corpus}"),
        *(f"runs={tmp_path}", "batch=32", "steps=4", "validate_every=2", "log_every=1"),
        *("checkpoint_every=2", "precision=fp32", "trackers=[]", "model.item.width=16"),
        *("model.user.width=16", "model.user.embedding=8"),
    ]
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    with Popen(command, cwd=ROOT, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # what Linux gives once the other side is closed
                break
            if not part:
                break
            seen += part
    os.close(ours)
    text = seen.decode()
    assert process.returncode == 0, text
    assert "Traceback" not in text
    assert "\x1b[1A" in text  # the cursor went up: drawn again in place
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert re.search(r"drawn ━+ 4/4  100%", plain)
    assert re.search(r"held out +entropy", plain)
    assert re.search(r"checkpoint +step 4", plain)
    assert re.search(r"best held-out entropy .* \(step [24]\)", plain)


def test_recall_of_a_gallery_that_anything_fills_is_no_figure() -> None:
    assert recall_text(1.0, 1.0) == "R@10 -"  # six candidates: every rank is at most ten
    assert recall_text(0.5, 0.1) == "R@10 0.500 (chance 0.100)"
    assert str(Validation(3, 1.792, 1.0, 1.0)) == "entropy 1.792, R@10 - (step 3)"
