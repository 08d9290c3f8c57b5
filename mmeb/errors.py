"""The one exception that means "the user can fix this"."""


class MmebError(Exception):
    """A mistake that the user can fix: unknown name, missing file, no space, wrong version of a library.

    The message is one plain sentence that says what to do. The command line prints it without a traceback and exits
    with `exit_code`; every other exception is a bug and keeps its traceback.
    """

    exit_code = 2
