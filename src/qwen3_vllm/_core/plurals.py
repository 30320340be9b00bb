"""Numbers of things in messages, with the noun that fits."""


def plural(noun: str) -> str:
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """Say so many: "1 query", "2,000 queries"."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"
