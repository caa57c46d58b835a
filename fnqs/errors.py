"""The one exception that a command turns into a sentence and exit code 2."""


class InputError(ValueError):
    """Something the user gave is wrong; the message says which file, what is wrong and what to do."""
