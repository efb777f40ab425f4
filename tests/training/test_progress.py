import io
import re

from rich.console import Console

from lfm_policy.training.progress import TrainingProgress


def follow(console: Console, total: int, start: int = 0) -> str:
    with TrainingProgress(total, start, console) as progress:
        for step in range(start + 1, total + 1):
            progress.update(step, loss=0.25, samples_per_s=1234.5)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_ten_lines_are_printed() -> None:
    lines = follow(Console(file=io.StringIO(), width=100), total=600).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("step 60/600  loss 0.2500  1,234 samples/s")
    assert re.search(r"\d+:\d\d left$", lines[0])
    assert lines[-1].endswith("0:00 left")


def test_a_resumed_run_prints_the_rest() -> None:
    lines = follow(Console(file=io.StringIO(), width=100), total=600, start=300).splitlines()
    assert [line.split()[1] for line in lines] == [f"{step}/600" for step in range(360, 601, 60)]


def test_a_short_run_prints_every_step() -> None:
    assert len(follow(Console(file=io.StringIO(), width=100), total=3).splitlines()) == 3


def test_on_a_terminal_there_is_one_bar() -> None:
    text = follow(Console(file=io.StringIO(), width=100, force_terminal=True), total=20)
    assert "20/20" in text
    assert "loss 0.2500" in text
    assert "step 20/20" not in text
