"""What the store holds, and its form as JSON."""
