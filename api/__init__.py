"""The HTTP side of the service: the Falcon application, the log stream, and the one port that serves both."""
