"""What protects the people behind browsers: origins, and the names that this service answers to."""
