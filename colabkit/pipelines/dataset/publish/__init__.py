"""What is published: a dataset of the Hub, voice-cloning pairs, fine-tuning rows."""
