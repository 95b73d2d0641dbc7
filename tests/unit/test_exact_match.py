"""Mathematical answers are matched by value, whatever their form, and hostile ones harm nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from w2s.errors import DataError
from w2s.exact_match import (
    NOTHING,
    RIGHT,
    TOO_HARD,
    VERDICTS,
    WRONG,
    Grader,
    boxed,
    last_boxed,
    result_text,
)


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as made:
        yield made


# Reference, answer, verdict: forms that occur in GSM8K, in MATH and in what models write.
CASES = [
    ("18", "She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", RIGHT),
    ("18", "The answer is 18.", RIGHT),
    ("18", "So she makes **$18** every day.", RIGHT),
    ("18", "She makes $18.00 a day", RIGHT),
    ("18", "18 dollars", RIGHT),
    ("18", "x=18", RIGHT),
    ("18", "That makes (18)", RIGHT),
    ("18", "\\boxed{18}", RIGHT),
    ("18", "The final answer is \\( \\boxed{18} \\). I hope it is correct.", RIGHT),
    ("18", "First 17, then one more, so 18", RIGHT),
    ("18", "#### 18 dollars a day", RIGHT),
    ("18", "18 eggs and 3 hens, so 21", WRONG),
    ("18", "The answer is 1.8", WRONG),
    ("18", "-18", WRONG),
    ("18", "180", WRONG),
    ("18", "#### 17", WRONG),
    ("18", "I have 18, hence \\boxed{19}", WRONG),
    ("18", "First \\boxed{18}, no: \\boxed{19}", WRONG),
    ("19", "First \\boxed{18}, no: \\boxed{19}", RIGHT),
    ("18", "I do not know.", NOTHING),
    ("18", "", NOTHING),
    ("18", "None", NOTHING),
    ("1,400", "1400", RIGHT),
    ("1400", "In all 1,400 dollars", RIGHT),
    ("10000", "\\boxed{10,000}", RIGHT),
    ("11,\\! 111,\\! 111", "\\boxed{11111111}", RIGHT),
    ("\\frac{1}{2}", "0.5", RIGHT),
    ("\\frac12", "\\boxed{\\dfrac{1}{2}}", RIGHT),
    ("\\frac{3}{4}", "3/4 of a cup", RIGHT),
    ("\\frac{14}{3}", "$\\frac{14}{3}$", RIGHT),
    ("\\frac{14}{3}", "\\boxed{4\\frac{2}{3}}", RIGHT),
    ("\\frac{1}{3}", "0.3", WRONG),
    ("\\frac{1}{2}", "\\frac{2}{1}", WRONG),
    ("50\\%", "50%", RIGHT),
    ("50\\%", "\\boxed{50}", RIGHT),
    ("50", "50 percent", RIGHT),
    ("5\\text{ cm}", "\\boxed{5}", RIGHT),
    ("90^\\circ", "\\boxed{90}", RIGHT),
    ("\\$18", "18", RIGHT),
    ("5", "\\boxed{x=5}", RIGHT),
    ("x=5", "\\boxed{5}", RIGHT),
    ("(-\\infty, 2]", "\\boxed{(-\\infty,2]}", RIGHT),
    ("[1,2)", "\\boxed{(1,2)}", WRONG),
    ("x \\in [-2,7]", "\\boxed{[-2,7]}", RIGHT),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "\\boxed{(3,\\pi/2)}", RIGHT),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "\\boxed{(3,\\pi)}", WRONG),
    ("1,-2", "\\boxed{-2, 1}", RIGHT),
    ("1,-2", "\\boxed{1}", WRONG),
    ("2\\sqrt{3}", "\\boxed{\\sqrt{12}}", RIGHT),
    ("x^2-1", "\\boxed{(x-1)(x+1)}", RIGHT),
    ("6-5i", "\\boxed{6 - 5i}", RIGHT),
    ("\\text{Evelyn}", "The answer is \\boxed{\\text{Evelyn}}.", RIGHT),
    ("\\text{Evelyn}", "The answer is \\boxed{\\text{Briana}}.", WRONG),
    ("\\text{(A)}", "\\boxed{A}", RIGHT),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\boxed{\\begin{pmatrix}1\\\\2\\end{pmatrix}}", RIGHT),
]


@pytest.mark.parametrize(("reference", "answer", "verdict"), CASES)
def test_verdicts(grader: Grader, reference: str, answer: str, verdict: str) -> None:
    assert grader.verdict(boxed(reference), answer) == verdict


def test_two_free_texts_are_compared_by_their_results(grader: Grader) -> None:
    assert grader.verdict("It takes 3 days.\n#### 12", "The answer is $\\frac{24}{2}$.") == RIGHT
    assert grader.verdict("It takes 3 days.\n#### 12", "3") == WRONG


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{1} then \\boxed{ 2 }", "2"),
        ("\\boxed 5", "5"),
        ("$\\boxed5$", "5"),
        ("\\fbox{7}", "7"),
        ("\\boxed{\\left\\{ 1, 2 \\right.}", "\\left\\{ 1, 2 \\right."),
        ("\\boxed{}", ""),
        ("\\boxed{\\frac{1}{2}", None),
        ("nothing", None),
    ],
)
def test_the_last_box(text: str, box: str | None) -> None:
    assert last_boxed(text) == box


def test_a_box_comes_before_the_mark_and_the_mark_before_the_text() -> None:
    assert result_text("#### 1\n\\boxed{2} and 3") == "\\boxed{2}"
    assert result_text("The answer is 5\n#### 1\nand 3") == "1"
    assert result_text("word " * 5000 + "3").endswith("word 3")


def test_a_reference_without_result_is_refused(grader: Grader) -> None:
    with pytest.raises(DataError, match="no result in 'nothing to see'"):
        grader.verdict("nothing to see", "5")


def test_hostile_answers_end_in_time_and_harm_no_later_one() -> None:
    with Grader(seconds=1, memory=2**31) as grader:
        started = time.monotonic()
        for hostile in ("\\boxed{9^{9^{9^{9}}}}", "\\boxed{" + "(" * 3000 + "1" + ")" * 3000 + "}"):
            assert grader.verdict(boxed("387420489"), hostile) == TOO_HARD
        assert time.monotonic() - started < 60  # limited is the processor's time: a busy machine takes longer
        assert grader.verdict(boxed("5"), "5") == RIGHT


def test_it_works_in_a_thread() -> None:
    found: list[str] = []

    def compare() -> None:
        with Grader() as grader:
            found.append(grader.verdict(boxed("5"), "5"))

    thread = threading.Thread(target=compare)
    thread.start()
    thread.join()
    assert found == [RIGHT]


def test_the_verdicts_are_those_that_are_counted() -> None:
    assert {verdict for *_, verdict in CASES} | {TOO_HARD} == set(VERDICTS)
