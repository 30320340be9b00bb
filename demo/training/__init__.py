"""What demo/train.py is made of: data, tokenizer, model, losses and scores."""
