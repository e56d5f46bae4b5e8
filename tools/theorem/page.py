"""Writes the report."""


def told(outcome):
    return "; ".join(outcome) or "UNDEFINED"


def write(out, space, reports, lines, known):
    pass
