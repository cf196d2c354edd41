"""What only the project itself runs. None of it is in the wheel."""
