"""What scripts/train_demo_models.py is made of: data, tokenizer, model, losses and scores."""
