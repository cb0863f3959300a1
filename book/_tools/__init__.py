"""The tools that build the book, run its notebooks and check what is stored in them."""
