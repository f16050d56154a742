"""The one exception that a user is meant to read."""


class ZeroVLError(Exception):
    """An error of the input, the settings or the surroundings, not of the program.

    Its message names the file or key, the value found, and the fix. The command line prints it
    without a traceback and exits with 2.
    """
