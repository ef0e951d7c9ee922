"""What each route does, as Falcon resources."""
