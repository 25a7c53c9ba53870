"""Rounds numbers for a terminal. JSON and files have every digit.

An unknown measurement is an empty text.
"""

from decimal import Decimal


def percent(number: Decimal | None) -> str:
    """A state of charge, to a tenth: `29.0`."""
    return "" if number is None else f"{number:z.1f}"


def energy(number: Decimal | None) -> str:
    """kWh, to 10 Wh: `10.50`."""
    return "" if number is None else f"{number:z,.2f}"


def power(number: Decimal | None) -> str:
    """kW, to 10 W, without trailing zeros: `11`, `7.36`."""
    return "" if number is None else short(number, 2)


def exact(number: Decimal, places: int = 2) -> str:
    """A number that a user set, such as a capacity: exact, unless it has more decimal places."""
    exponent = number.as_tuple().exponent
    is_short = isinstance(exponent, int) and exponent >= -places
    return f"{number:f}" if is_short else short(number, places)


def short(number: Decimal, places: int = 1) -> str:
    """With at most `places` decimal places, without trailing zeros; from 1000 on with none."""
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    text = f"{number:z.{places}f}"
    if number and not Decimal(text):
        return f"{number:.1g}"  # not zero
    return text.rstrip("0").removesuffix(".") if places else text


def tenth(number: Decimal | None) -> str:
    """With one decimal place; from 1000 on with none."""
    if number is None:
        return ""
    return f"{number:z,.1f}" if abs(number) < 1000 else f"{number:,.0f}"
