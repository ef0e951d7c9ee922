"""Makes a release: distributions with the same bytes each time, their bill of materials, licences, and the tag.

Run as `python -m release`, by `make release` and `make version`; needs the packages of `requirements/release.txt`.
"""
