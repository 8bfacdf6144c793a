"""Forms with files, as browsers send them: read piece by piece, kept in memory and nowhere else."""

from __future__ import annotations

import logging

from python_multipart.multipart import MultipartParser, parse_options_header

# It tells of wrong bytes in forms. What callers do wrong is counted, not logged.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class FormError(Exception):
    """The form is not well-formed; the message says why."""


class TooManyFilesError(Exception):
    """The form holds more files than it may."""


class Form:
    """The files of a form; give it the body's pieces with `write`, then ask for its `files`.

    Args:
        content_type: the request's.
        max_files: how many it may hold.

    Raises:
        FormError: no boundary, or one that cannot be.
    """

    def __init__(self, content_type: str, max_files: int) -> None:
        self._max_files = max_files
        self._files: list[list[bytes]] = []
        self._whole = False
        self._name, self._value, self._disposition = bytearray(), bytearray(), b""
        _, options = parse_options_header(content_type)
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._on_part_begin,
                    "on_part_data": self._on_part_data,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_end": self._on_end,
                },
            )
        except (KeyError, ValueError) as error:
            raise FormError("its Content-Type names no boundary") from error

    def write(self, data: bytes) -> None:
        """Read the next piece of the body.

        Raises:
            FormError: it is not well-formed, or holds anything but files.
            TooManyFilesError: it holds more files than it may.
        """
        try:
            self._parser.write(data)
        except ValueError as error:  # what the parser raises; its words may quote the form
            raise FormError("its parts are not set apart as RFC 7578 says") from error

    def files(self) -> list[bytes]:
        """Return the files, in order; to be called once, when all has been written.

        Raises:
            FormError: it is cut off.
        """
        if not self._whole:
            raise FormError("it is cut off")
        found = []
        while self._files:
            found.append(b"".join(self._files.pop(0)))
        return found

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise FormError("each part has a header Content-Disposition: form-data, with a name")
        if b"filename" not in options:
            raise FormError(
                "it holds files only, and options stand in the address, such as ?operating_point=balanced. "
                "Received: another field"
            )
        if len(self._files) == self._max_files:
            raise TooManyFilesError
        self._files.append([])

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._files[-1].append(data[start:end])

    def _on_end(self) -> None:
        self._whole = True
