"""Build the model of a row at the budget."""
