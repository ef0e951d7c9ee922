"""Who knows which secrets, and how texts are cleaned of them. The rules for users are in docs/secrets.md."""
