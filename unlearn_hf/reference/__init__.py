"""The model before unlearning: its distributions, and its NLL as a column of the rows."""
