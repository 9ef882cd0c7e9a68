"""Operating what runs: scale, drain, look."""
