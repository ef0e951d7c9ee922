"""Write the pages of the documentation that are made from the product: `make docs-pages`."""

from pages import DOCS, made

for name, text in made().items():
    (DOCS / name).write_text(text, encoding="utf-8")
