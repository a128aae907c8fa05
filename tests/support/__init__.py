"""What the tests share: their server, and words for what they do to it."""
