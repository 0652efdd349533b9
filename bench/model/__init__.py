"""From a row of a suite to a model that costs what the budget allows."""
