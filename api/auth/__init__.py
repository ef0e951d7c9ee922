"""Who calls, and what they may do: `Access` (access.py) is what REST and the log stream ask; nothing here knows HTTP
servers but middleware.py and streaming.py."""
