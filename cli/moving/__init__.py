"""Commands that move what a store holds: export, import, backup."""
