"""What is asked, how it is written for a model, and how an answer is read."""
