"""Forms with files: what is clear is read, however odd, and every other kind is told as what it is."""

from __future__ import annotations

import logging

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

pytest.importorskip("python_multipart", reason="the extra 'serve' is not installed")

from pneumolib.serving.forms import Form, FormError, TooManyFilesError

FORM = "multipart/form-data; boundary=B"
END = b"--B--\r\n"
FILE = b'name="file"; filename="a.png"'
FIELD = b'name="operating_point"'


def part(names: bytes = FILE, content: bytes = b"abc", headers: bytes = b"") -> bytes:
    return b"--B\r\nContent-Disposition: form-data; " + names + b"\r\n" + headers + b"\r\n" + content + b"\r\n"


def read(body: bytes, kind: str = FORM, *, max_files: int = 4, step: int = 1 << 16) -> list[bytes]:
    """The files of a form that comes `step` bytes at a time."""
    form = Form(kind, max_files)
    for start in range(0, len(body), step):
        form.write(body[start : start + step])
    return form.files()


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_a_form_holds_files(step: int) -> None:
    body = part(content=b"one") + part(b'name="other"; filename=""', b"\r\n--b\r\n") + part(content=b"") + END
    assert read(body, step=step) == [b"one", b"\r\n--b\r\n", b""]
    assert read(END, step=step) == []


READ = {
    "no line after the end": (FORM, part() + b"--B--"),
    "something after the end": (FORM, part() + END + b"junk"),
    "a quoted boundary": ('multipart/form-data; boundary="B"', part() + END),
    "other letters": ("Multipart/Form-Data; boundary=B", part() + END),
    "a NUL in names": (FORM, part(b'name="a\0b"; filename="\0"') + END),
    "no UTF-8 in names": (FORM, part(b'name="\xff\xfe"; filename="\xff"') + END),
    "a charset": (f"{FORM}; charset=undefined", part() + END),
    "a name twice": (FORM, part(b'name="a"; name="b"; filename="c"; filename="d"') + END),
}


@pytest.mark.parametrize(("kind", "body"), READ.values(), ids=READ)
def test_what_is_odd_but_clear_is_read(kind: str, body: bytes) -> None:
    assert read(body, kind) == [b"abc"]


def test_a_form_within_a_form_is_a_file_like_any_other() -> None:
    inner = b"--C\r\n\r\nabc\r\n--C--"
    assert read(part(content=inner, headers=b"Content-Type: multipart/mixed; boundary=C\r\n") + END) == [inner]


MALFORMED = {
    "no boundary": ("multipart/form-data", part() + END),
    "an empty boundary": ("multipart/form-data; boundary=", part() + END),
    "a long boundary": (f"multipart/form-data; boundary={'B' * 1000}", part() + END),
    "another boundary": ("multipart/form-data; boundary=C", part() + END),
    "cut off in a file": (FORM, part()[:-4]),
    "cut off in a header": (FORM, part()[:30]),
    "cut off after a file": (FORM, part()),
    "cut off in the end": (FORM, part() + END[:-3]),
    "empty": (FORM, b""),
    "no form": (FORM, b"\x89PNG\r\n\x1a\n"),
    "lines without CR": (FORM, (part() + END).replace(b"\r\n", b"\n")),
    "something before the first": (FORM, b"junk\r\n" + part() + END),
    "no disposition": (FORM, b"--B\r\n\r\nabc\r\n" + END),
    "no name": (FORM, part(b'filename="a"') + END),
    "a line's end in a name": (FORM, part(b'name="a\r\nb"; filename="x"') + END),
    "a header without a colon": (FORM, b"--B\r\nno colon\r\n\r\nabc\r\n" + END),
    "a NUL in a header": (FORM, part(headers=b"A\0: b\r\n") + END),
    "a header without end": (FORM, part(headers=b"X: " + b"a" * 100_000 + b"\r\n") + END),
    "headers without end": (FORM, part(headers=b"X: a\r\n" * 10_000) + END),
    "a field": (FORM, part() + part(FIELD) + END),
    "fields without end": (FORM, part(FIELD) * 10_000 + END),
    "a large field": (FORM, part(FIELD, bytes(2**21)) + END),
    "no form-data": (FORM, (part() + END).replace(b"form-data", b"attachment")),
    "a file that is named in a way that RFC 7578 forbids": (FORM, part(b"name=file; filename*=UTF-8''%e2") + END),
}


@pytest.mark.parametrize(("kind", "body"), MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("step", [1021, 1 << 16])
def test_a_form_that_is_not_well_formed_is_refused(
    kind: str, body: bytes, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(FormError):
        read(body, kind, step=step)
    assert caplog.records == []


def test_a_field_is_refused_where_it_begins() -> None:
    form = Form(FORM, 2)
    with pytest.raises(FormError, match="options stand in the address"):
        form.write(part() + part(FIELD)[:-5])


def test_files_are_counted_before_they_are_read() -> None:
    form = Form(FORM, 2)
    form.write(part() + part())
    with pytest.raises(TooManyFilesError):
        form.write(part()[:-5])


FRAGMENTS = [
    b"--B",
    b"--",
    b"\r\n",
    b"\n",
    b": ",
    b";",
    b'"',
    b"=",
    b"\0",
    b"Content-Disposition: form-data; ",
    FILE,
    FIELD,
]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    pieces=st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=8)), max_size=20),
    boundary=st.sampled_from(["B", '"B"', "", "B; charset=idna", "B; boundary", "B; boundary=C"]),
    step=st.integers(1, 64),
)
def test_whatever_comes_is_read_or_refused(pieces: list[bytes], boundary: str, step: int) -> None:
    kind = f"multipart/form-data; boundary={boundary}"
    for body in (b"".join(pieces), part(b"".join(pieces)) + END, part(headers=b"".join(pieces)) + END):
        try:
            assert len(read(body, kind, step=step)) <= 4
        except (FormError, TooManyFilesError):
            event("refused")
        else:
            event("read")
