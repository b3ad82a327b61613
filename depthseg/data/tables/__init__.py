"""Tables of the Hugging Face Hub: their rows, and which columns hold images, labels and depth."""
