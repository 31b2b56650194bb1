"""What is behind `funcbp.cli`: targets, arguments, the commands, and what they print."""
