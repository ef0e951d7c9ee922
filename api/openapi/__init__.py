"""What the API takes and answers, as an OpenAPI document and as a page for people."""
