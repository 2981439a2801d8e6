"""The plan that does best on validation, the best tuned control, and whether one beats the other on
fresh seeds."""
