"""Checks for `jobflow doctor`: each looks at one thing, changes nothing, and says what to do."""
