"""Names that do not match: the first of each side, the likely reason and the cure."""

import pytest

from refineloc.runtime.names import first_names, nothing_shared, why_unmatched


@pytest.mark.parametrize(
    ("name", "other", "reason"),
    [
        ("v_a1", "a1", "they differ in the prefix 'v_'"),
        ("a1", "v_a1", "they differ in the prefix 'v_'"),
        ("a1.mp4", "a1", "they differ in the file's ending"),
        ("a1.MKV", "a1.mp4", "they differ in the file's ending"),
        ("val/a1", "a1", "they differ in the folder"),
        ("C:\\films\\a1.mp4", "v_a1", "they differ in the folder and the file's ending and the prefix 'v_'"),
        ("a1_rgb", "a1", "they differ in the addition of a stream or encoder"),
        ("a_1", "a_0001", "they differ in leading zeros"),
        ("a-1", "a_1", "they differ in '-' and '_'"),
        ("A1", "a1", "they differ in case"),
        ("a 1", "a\u00a01", "they differ in spaces"),
        ("cafe\u0301", "caf\u00e9", r"they differ in Unicode's form of letters (NFC, NFD)"),
        ("V_A1.mp4", "a1", "they differ in the file's ending and the prefix 'v_' and case"),
    ],
)
def test_the_reason_is_named(name: str, other: str, reason: str) -> None:
    assert why_unmatched([name, "zz"], {other, "yy"}) == (
        f"; {name!r} is {other!r} there ({reason}): give both the same name"
    )


def test_names_that_have_nothing_to_do_with_each_other_have_no_reason() -> None:
    assert why_unmatched(["a"], ["b", "ab"]) == ""
    assert why_unmatched([], ["b"]) == why_unmatched(["a"], []) == ""


def test_messages_show_the_first_names() -> None:
    assert first_names("dcba") == "'a', 'b', 'c', ..."
    assert first_names("ba") == "'a', 'b'"
    assert nothing_shared("video", "f.h5", ["v_b", "v_a"], "l.csv", ["a"]) == (
        "f.h5 and l.csv have no video in common: the first are 'v_a' and 'a'; 'v_a' is 'a' there "
        "(they differ in the prefix 'v_'): give both the same name"
    )
