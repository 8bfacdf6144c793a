"""The API that answers in real time, and its page."""
