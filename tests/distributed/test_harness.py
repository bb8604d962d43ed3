"""What goes wrong in a rank is the failure of its test, with its output, and of no other."""

import os
import sys
import time

import pytest

from tests.distributed.harness import run_ranks

HERE = "tests.distributed.test_harness"


def numbered():
    """Print the rank and the number of ranks."""
    print(os.environ["RANK"], os.environ["WORLD_SIZE"])


def failing():
    """Fail in rank 1; the others would wait."""
    if os.environ["RANK"] == "1":
        raise ZeroDivisionError("a mistake in rank 1")
    time.sleep(1000)


def killed():
    """Die without a word."""
    os.kill(os.getpid(), 9)


def endless():
    """Say where it is, and stay there."""
    print("in endless", file=sys.stderr, flush=True)
    time.sleep(1000)


def leave_a_mark():
    """Change what a later case could notice."""
    os.environ["LEFT_BEHIND"] = sys.modules["torch"].left_behind = "yes"


def find_marks():
    """Print whether there are any."""
    print("LEFT_BEHIND" in os.environ, hasattr(sys.modules["torch"], "left_behind"))


def test_every_rank_knows_its_number_and_its_output_is_its_own():
    assert run_ranks(3, f"{HERE}:numbered") == ["0 3\n", "1 3\n", "2 3\n"]


@pytest.mark.parametrize(
    ("case", "message"),
    [("failing", "rank 1 of 2 ended with 1:.*a mistake in rank 1"), ("killed", "rank . of 2 ended with -9")],
)
def test_a_rank_that_fails_or_dies_is_named_and_the_next_case_is_none_the_worse(case, message):
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        run_ranks(2, f"{HERE}:{case}")
    assert run_ranks(1, f"{HERE}:numbered") == ["0 1\n"]


def test_ranks_that_do_not_end_are_ended_and_say_where_they_were():
    with pytest.raises(AssertionError, match="(?s)still at work after 3 s.*in endless.*test_harness.py.* in endless"):
        run_ranks(2, f"{HERE}:endless", timeout=3)
    assert run_ranks(1, f"{HERE}:numbered") == ["0 1\n"]


def test_a_case_leaves_nothing_to_the_next():
    run_ranks(1, f"{HERE}:leave_a_mark")
    assert run_ranks(1, f"{HERE}:find_marks") == ["False False\n"]
