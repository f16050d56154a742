"""Rank the pictures of a folder by a sentence.

    python examples/search_a_folder.py zerovl@production "two green hearts" data/demo/raw/poster/valid

The model is a bundle's folder or a release, of a registry in a folder or on S3. `zerovl search` does the same with
more comfort.
"""

from __future__ import annotations

import sys
from pathlib import Path

import zerovl

TOP = 10


def main(reference: str, query: str, folder: str) -> None:
    """Print the pictures that fit the query best, each with its cosine."""
    model = zerovl.load(reference)
    pictures = sorted(path for path in Path(folder).iterdir() if path.suffix in (".jpg", ".jpeg", ".png"))
    cosines = model.encode_text([query]) @ model.encode_image(pictures).T  # (1, pictures): embeddings have length 1
    for row in cosines[0].argsort(descending=True)[:TOP].tolist():
        print(f"{cosines[0, row]:.4f}  {pictures[row]}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit('usage: python examples/search_a_folder.py MODEL "QUERY" FOLDER')
    try:
        main(*sys.argv[1:])
    except zerovl.ZeroVLError as error:
        sys.exit(f"search_a_folder: {error}")
