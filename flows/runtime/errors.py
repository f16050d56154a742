"""The error of a run or a command whose message says all that there is to know."""


class FlowError(Exception):
    """Something cannot go on, for a reason that the message says; the log of a run has it without a traceback."""
