"""Parts of shards from S3 by ranged GET (see `zerovl.s3` for endpoint and credentials)."""

from __future__ import annotations

from zerovl import s3
from zerovl.errors import ZeroVLError


class S3Ranges:
    """The `zerovl.data.shards.ByteRanges` under s3://bucket/prefix; picklable and safe to use after a fork."""

    def __init__(self, root: str) -> None:
        place = s3.parse(root)
        prefix = place.path.strip("/")
        self._bucket = s3.Bucket(place.bucket)
        self._prefix = f"{prefix}/" if prefix else ""

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Return at most `size` bytes; raises `FileNotFoundError`, `OSError`."""
        key = self._prefix + path
        try:
            return b"".join(self._bucket.blocks(key, f"S3 cannot read {key}", offset, offset + size))
        except s3.AnswerError as error:
            if error.is_missing_key:
                raise FileNotFoundError(key) from None
            if error.is_past_the_end:
                return b""
            raise OSError(f"S3 answers {error.code}: {error}") from None
        except ZeroVLError as error:
            raise OSError(str(error)) from None

    def close(self) -> None:
        """Close the connections of this process."""
        self._bucket.close()
