"""Assembly text to programs and back."""
