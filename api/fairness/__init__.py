"""Threads of REST, shared among callers: nobody takes all of them, least of all somebody who is not known."""
