"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """Bad input: its message is one line that says what is wrong, what is legal and how to mend it.

    The command line prints the message and exits with code 1; nothing below it prints or exits.
    """
