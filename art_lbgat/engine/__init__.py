"""One fit: a run of epochs, the step that every method takes, what it keeps and how it goes on after a stop."""
