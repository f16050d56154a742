"""The files that a bundle consists of, beside their digests (`bundle_digests`): their names stand here alone."""

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER = (TOKENIZER_FILE, "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
MODEL_CARD = "MODEL_CARD.md"  # of a release, beside the model
