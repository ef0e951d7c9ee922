"""Lists: in pages for who asks for pages, else whole, and streamed when they are long."""
