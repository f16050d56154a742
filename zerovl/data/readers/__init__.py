"""Raw sources as streams of records; `zerovl.data.readers.sources` is the way in."""
