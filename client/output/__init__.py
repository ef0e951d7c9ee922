"""What commands print: tables for people, documents for programs."""
