"""Times of a whole column against the standard library, one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from worker.event_times import TIME_MS_MAX, TIME_MS_MIN, iso_column_to_ms, iso_to_ms

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.datetimes(datetime.fromisoformat("1000-01-01"))
FORMS = (
    "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%fZ",
    "%Y-%m-%dT%H:%MZ", "%Y-%m-%d",
)  # fmt: skip


def expected(moment: datetime, form: str) -> int:
    read = datetime.strptime(moment.strftime(form), form).replace(tzinfo=UTC)
    return (read - EPOCH) // timedelta(milliseconds=1)


@given(st.lists(st.tuples(MOMENTS, st.sampled_from(FORMS)), max_size=30))
def test_a_column_of_any_mixture_of_forms_equals_the_standard_library(
    rows: list[tuple[datetime, str]],
) -> None:
    """Rows of one layout are read together and the others alone; the result is the same."""
    texts = [moment.strftime(form) for moment, form in rows]
    times, valid = iso_column_to_ms(texts)
    assert valid.all()
    assert times.tolist() == [expected(moment, form) for moment, form in rows]


@given(
    st.lists(
        st.from_regex(
            r"\A20[0-9][0-9][-/][01][0-9][-/][0-3][0-9][T _]"
            r"[0-2][0-9][:.][0-6][0-9][:.][0-6][0-9][.0Z]?[05Z]?Z?\Z"
        ),
        max_size=30,
    )
)  # fmt: skip
def test_a_column_with_impossible_times_is_judged_as_each_text_alone(texts: list[str]) -> None:
    """Wrong days, hours and layouts are no times, and their neighbours are not touched."""
    times, valid = iso_column_to_ms(texts)
    alone = [iso_to_ms(text) for text in texts]
    assert valid.tolist() == [one is not None for one in alone]
    assert times.tolist() == [one or 0 for one in alone]


def test_the_last_day_of_february_follows_the_gregorian_rule() -> None:
    """Centuries are no leap years but every fourth one is."""
    years = [1900, 2000, 2023, 2024, 2100]
    for tail in ("T00:00:00", ""):
        _, valid = iso_column_to_ms([f"{year}-02-29{tail}" for year in years])
        assert valid.tolist() == [False, True, False, True, False]


def test_a_layout_that_differs_in_one_separator_is_no_time() -> None:
    """Every separator is looked at, in a column whose first row is right."""
    right = "2024-05-01T12:30:45.250Z"
    for at in (4, 7, 10, 13, 16, 19, 23):
        _, valid = iso_column_to_ms([right, f"{right[:at]}_{right[at + 1 :]}", right])
        assert valid.tolist() == [True, False, True]


def test_the_first_and_the_last_millisecond_that_can_be_said() -> None:
    """The bounds, and one hour beyond each by an offset."""
    assert iso_to_ms("0001-01-01T00:00:00Z") == TIME_MS_MIN
    assert iso_to_ms("9999-12-31T23:59:59.999Z") == TIME_MS_MAX
    assert iso_to_ms("0001-01-01T00:00:00+01:00") is None
    assert iso_to_ms("9999-12-31T23:59:59-01:00") is None
