"""The bytes of the field `file` in a body of multipart/form-data, as they come."""

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tasks.errors import InvalidInput

FORM = "multipart/form-data"
# Everything of a body that is not the file.
OVERHEAD_BYTES = 64 * 1024


class FileField:
    """Feed it the body; it gives what belongs to the file. Methods raise InvalidInput."""

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        if not options.get(b"boundary"):
            raise InvalidInput(f"{FORM} without a boundary")
        # The part has begun; the body has come to its end.
        self._begun = self.ended = False
        self._header, self._value = bytearray(), bytearray()
        self._found: list[bytes] = []
        self._other_bytes = 0
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._part,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._header_ends,
                    "on_part_data": lambda data, start, end: self._found.append(data[start:end]),
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidInput(f"not valid {FORM}: {error}") from None

    def feed(self, block: bytes) -> list[bytes]:
        """The file's bytes in a block of the body."""
        try:
            self._parser.write(block)
        except FormParserError as error:
            raise InvalidInput(f"not valid {FORM}: {error}") from None
        found, self._found = self._found, []
        self._other_bytes += len(block) - sum(map(len, found))
        if self._other_bytes > OVERHEAD_BYTES:
            raise InvalidInput(f"the body holds more than one field `file` of {FORM}")
        return found

    def _part(self) -> None:
        if self._begun:
            raise InvalidInput("send one field, `file`: one file at a time")
        self._begun = True

    def _header_ends(self) -> None:
        name, value = bytes(self._header).lower(), bytes(self._value)
        self._header.clear()
        self._value.clear()
        if name == b"content-disposition" and parse_options_header(value)[1].get(b"name") != b"file":
            raise InvalidInput("the file must be in the field `file`")

    def _end(self) -> None:
        self.ended = self._begun
