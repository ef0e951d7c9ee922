"""The log stream: WebSockets that show a deployment's log and follow it."""
