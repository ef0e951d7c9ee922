"""The parts of an operation's record."""
