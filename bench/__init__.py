"""bench: video-captioning papers side by side, under one protocol."""

__version__ = "0.1.0"


class BenchError(Exception):
    """A mistake the user can mend, said in a sentence: what, where, allowed values, next command.

    The command line prints the sentence without a traceback and exits with status 2.
    """
