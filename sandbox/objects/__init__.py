"""What becomes of an object on its way into the store: patches, strict decoding, defaults, validation, Pod Security."""
