"""The wire format of protocol buffers: the fields of a message, without a schema."""

from collections.abc import Iterator

Value = int | memoryview
"""A field's value: a number, or bytes (of text, a message, packed or fixed-width numbers)."""

_LONGEST_VARINT = 10
_WIDTHS = {1: 8, 5: 4}
_VARINT, _BYTES = 0, 2


def read_varint(data: bytes | memoryview, place: int) -> tuple[int, int]:
    """A whole number of seven bits a byte, the lowest first, and the place behind it.

    Args:
        data: the bytes, of which each that is not the number's last has its highest bit set.
        place: where the number begins.

    Raises:
        ValueError: it is cut short, or has more than 64 bits.
    """
    if place < len(data) and data[place] < 0x80:  # as most are
        return data[place], place + 1
    number = shift = 0
    for byte in data[place : place + _LONGEST_VARINT]:
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >> 64:
                break
            return number, place
        shift += 7
    raise ValueError("a number is cut short, or has more than 64 bits")


def signed(number: int) -> int:
    """The number in two's complement of 64 bits that a varint holds."""
    return number - 2**64 if number >> 63 else number


class Messages:
    """Splits the messages of one file into fields, and stops where there are too many."""

    def __init__(self, most_fields: int) -> None:
        """Nothing is read yet.

        Args:
            most_fields: how many fields all the messages together may have.
        """
        self._most = self._left = most_fields

    def fields(self, message: memoryview) -> Iterator[tuple[int, Value]]:
        """The number and the value of each field, in the file's order; nothing is copied.

        Raises:
            ValueError: the message is damaged, has groups, or passes the number of fields.
        """
        place, end = 0, len(message)
        while place < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"it has more than {self._most} fields")
            tag, place = read_varint(message, place)
            number, kind = tag >> 3, tag & 7
            if number == 0:
                raise ValueError("a field has the number 0")
            if kind == _VARINT:
                value, place = read_varint(message, place)
                yield number, value
                continue
            if kind == _BYTES:
                size, place = read_varint(message, place)
            elif kind in _WIDTHS:
                size = _WIDTHS[kind]
            else:
                raise ValueError(f"field {number} has wire type {kind}, which is not used")
            if size > end - place:
                raise ValueError(f"field {number} ends behind its message")
            yield number, message[place : place + size]
            place += size

    def last(self, message: memoryview, wanted: int) -> Value | None:
        """The value of a field, of which the last one counts; None if it is not there.

        Raises:
            ValueError: as `fields`.
        """
        found = None
        for number, value in self.fields(message):
            if number == wanted:
                found = value
        return found


def unpack_varints(packed: memoryview) -> Iterator[int]:
    """The numbers of a packed field.

    Raises:
        ValueError: one is cut short, or has more than 64 bits.
    """
    place = 0
    while place < len(packed):
        number, place = read_varint(packed, place)
        yield number


def as_number(value: Value) -> int:
    """The value of a field of whole numbers.

    Raises:
        ValueError: it is no number.
    """
    if not isinstance(value, int):
        raise ValueError("a field holds bytes where a number belongs")
    return value


def as_bytes(value: Value) -> memoryview:
    """The value of a field of text, of a message or of packed numbers.

    Raises:
        ValueError: it is a number.
    """
    if isinstance(value, int):
        raise ValueError("a field holds a number where bytes belong")
    return value
